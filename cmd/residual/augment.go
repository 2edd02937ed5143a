package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/loader"
)

// augmentOptions change what a recipe does to training pictures.
type augmentOptions struct {
	value  loader.Augment
	auto   string
	jitter []float64

	flags *pflag.FlagSet
}

// RandAugment's defaults are torchvision's.
const (
	randOps       = 2
	randMagnitude = 9
)

func (o *augmentOptions) addFlags(f *pflag.FlagSet) {
	o.flags = f
	a := &o.value
	f.Float64Var(&a.ResizedCrop, "resized-crop", 0, "cut out a random part of at least this share of the area, such as 0.08, instead of resizing all of it")
	f.IntVar(&a.PadCrop, "pad-crop", 0, "pad with `N` black pixels and cut a random window out")
	f.IntVar(&a.Translate, "translate", 0, "shift by up to `N` pixels, reflected at the edges")
	f.BoolVar(&a.Flip, "flip", false, "mirror half of the pictures, at random")
	f.BoolVar(&a.AlternatingFlip, "alternating-flip", false, "mirror every picture in every second epoch, beginning at random")
	choiceFlag(f, &o.auto, "auto-augment", "TrivialAugment or RandAugment, as in torchvision", "none", loader.TrivialAugment, loader.RandAugment)
	f.IntVar(&a.RandOps, "rand-ops", randOps, "operations of RandAugment")
	f.IntVar(&a.RandMagnitude, "rand-magnitude", randMagnitude, "magnitude of RandAugment's operations, 0 to 30")
	numbersFlag(f, &o.jitter, "jitter", "largest changes of brightness, contrast, saturation and hue, such as 0.4,0.4,0.4,0.1")
	f.IntVar(&a.Cutout, "cutout", 0, "blank a square of `N` by N pixels")
	f.Float64Var(&a.Erase, "erase", 0, "blank a random rectangle with this probability")
	f.Float64Var(&a.Mixup, "mixup", 0, "mix pairs of pictures and labels by shares drawn from Beta(α,α); α, such as 0.2")
	f.Float64Var(&a.CutMix, "cutmix", 0, "paste a part of another picture in and mix labels; α, such as 1")
}

// apply changes a recipe's augmentation where a flag, the environment or a file says
// so.
func (o *augmentOptions) apply(a loader.Augment) (loader.Augment, error) {
	set, v := o.flags.Changed, o.value
	overrideInto(set, "resized-crop", &a.ResizedCrop, v.ResizedCrop)
	overrideInto(set, "pad-crop", &a.PadCrop, v.PadCrop)
	overrideInto(set, "translate", &a.Translate, v.Translate)
	overrideInto(set, "flip", &a.Flip, v.Flip)
	overrideInto(set, "alternating-flip", &a.AlternatingFlip, v.AlternatingFlip)
	overrideInto(set, "cutout", &a.Cutout, v.Cutout)
	overrideInto(set, "erase", &a.Erase, v.Erase)
	overrideInto(set, "mixup", &a.Mixup, v.Mixup)
	overrideInto(set, "cutmix", &a.CutMix, v.CutMix)

	// Of two that exclude each other, the one that was asked for.
	switch {
	case set("translate") && !set("pad-crop") && a.Translate > 0:
		a.PadCrop = 0
	case set("pad-crop") && !set("translate") && a.PadCrop > 0:
		a.Translate = 0
	}
	switch {
	case set("alternating-flip") && !set("flip") && a.AlternatingFlip:
		a.Flip = false
	case set("flip") && !set("alternating-flip") && a.Flip:
		a.AlternatingFlip = false
	}

	if set("auto-augment") {
		a.Auto = o.auto
		if o.auto == "none" {
			a.Auto = ""
		}
	}
	switch {
	case a.Auto != loader.RandAugment:
		for _, flag := range []string{"rand-ops", "rand-magnitude"} {
			if set(flag) {
				return a, usageError{fmt.Errorf("--%s is of --auto-augment %s", flag, loader.RandAugment)}
			}
		}
		a.RandOps, a.RandMagnitude = 0, 0
	case a.RandOps == 0: // not the recipe's
		a.RandOps, a.RandMagnitude = v.RandOps, v.RandMagnitude
	default:
		overrideInto(set, "rand-ops", &a.RandOps, v.RandOps)
		overrideInto(set, "rand-magnitude", &a.RandMagnitude, v.RandMagnitude)
	}

	if set("jitter") {
		j := o.jitter
		if len(j) > 4 {
			return a, usageError{fmt.Errorf("--jitter has %d numbers, want at most 4: brightness, contrast, saturation, hue", len(j))}
		}
		j = append(j, make([]float64, 4-len(j))...)
		a.Jitter = loader.Jitter{Brightness: j[0], Contrast: j[1], Saturation: j[2], Hue: j[3]}
	}
	return a, nil
}
