package format

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
)

// Given is what the user says about a network; it outranks the file. Zero values
// leave it to the file.
type Given struct {
	Height, Width int
	Scale         float64 // (x·Scale - Mean)/Std, x in 0..255
	Mean, Std     []float64
	Resize        string
	CropPct       float64
	Classes       []string
}

// imageNetMean and imageNetStd are what torchvision's and timm's ResNets and the
// common CIFAR checkpoints were trained with, as shares of 255
// (https://docs.pytorch.org/vision/stable/models.html).
var (
	imageNetMean = []float64{0.485, 0.456, 0.406}
	imageNetStd  = []float64{0.229, 0.224, 0.225}
)

// Complete fills in what neither file nor given say, and returns a sentence for
// each thing that was assumed or overruled:
//
//	size           32×32 with the 3×3 stem, 224×224 with the 7×7 stem
//	preprocessing  x/255, and of three channels in torch convention ImageNet's
//	               mean and deviation; the longer side cut
//	classes        the numbers from 0
func Complete(m *artifact.Model, given Given) (notes []string, err error) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	c := &m.Config
	before := *c
	if given.Height < 0 || given.Width < 0 {
		return nil, fmt.Errorf("pictures of %d×%d are asked for, want 1 or more", given.Height, given.Width)
	}
	if c.Height == 0 && m.Preprocess != nil {
		c.Height, c.Width = m.Preprocess.Height, m.Preprocess.Width
	}
	if given.Height > 0 {
		c.Height = given.Height
	}
	if given.Width > 0 {
		c.Width = given.Width
	}
	if c.Height == 0 || c.Width == 0 {
		*c = artifact.Sized(*c)
		note("size of the pictures: %d×%d is assumed", c.Height, c.Width)
	}

	var was loader.Preprocess
	known := m.Preprocess != nil
	p := loader.Preprocess{Resize: loader.Crop, Scale: 1.0 / 255}
	if known {
		was = *m.Preprocess
		p = was
	}
	numbers := given.Scale != 0 || given.Mean != nil || given.Std != nil
	switch {
	case numbers:
		p.Scale, p.Mean, p.Std = 1.0/255, given.Mean, given.Std
		if given.Scale != 0 {
			p.Scale = given.Scale
		}
	case !known && c.Channels == 3 && c.Convention == model.Torch:
		p.Mean, p.Std = imageNetMean, imageNetStd
	}
	if given.Resize != "" {
		p.Resize, p.CropPct = given.Resize, 0
	}
	if given.CropPct != 0 {
		p.CropPct = given.CropPct
	}
	p.Height, p.Width, p.Channels = c.Height, c.Width, c.Channels
	m.Preprocess = &p
	if known && numbers && !(was.Scale == p.Scale && slices.Equal(was.Mean, p.Mean) && slices.Equal(was.Std, p.Std)) {
		note("the file's preprocessing is overruled: %s", Describe(was))
	}
	switch {
	case numbers && p.Mean == nil && p.Std == nil:
		note("neither means nor deviations are given: 0 and 1 are assumed")
	case numbers && p.Mean == nil:
		note("no means are given: 0 is assumed")
	case numbers && p.Std == nil:
		note("no deviations are given: 1 is assumed")
	}
	if !known && !numbers {
		note("preprocessing is assumed: %s", Describe(p))
	}
	if len(m.Golden) > 0 && (known && !reflect.DeepEqual(p, was) || before.Height != c.Height || before.Width != c.Width) {
		m.Golden = nil
		note("the golden vectors of the file do not hold for what was given and are left out")
	}

	if given.Classes != nil {
		if len(given.Classes) != c.Classes {
			return notes, fmt.Errorf("%d class names are given, the network has %d classes", len(given.Classes), c.Classes)
		}
		m.Classes = given.Classes
	}
	if m.Classes == nil {
		note("the names of the classes are not known: they are the numbers 0 to %d", c.Classes-1)
	}
	return notes, m.Check()
}

// Describe is a preprocessing as a formula.
func Describe(p loader.Preprocess) string {
	text := fmt.Sprintf("x·%.6g", p.Scale)
	if inverse := 1 / p.Scale; inverse == float64(int(inverse)) {
		text = fmt.Sprintf("x/%d", int(inverse))
	}
	if len(p.Mean) > 0 {
		text = fmt.Sprintf("%s - %v", text, p.Mean)
	}
	if len(p.Std) > 0 {
		text = fmt.Sprintf("(%s)/%v", text, p.Std)
	}
	how := p.Resize
	if p.CropPct != 0 {
		how += fmt.Sprintf(" %g", p.CropPct)
	}
	return fmt.Sprintf("%s, %d×%d, %s", text, p.Height, p.Width, how)
}
