package main

import (
	"context"
	"fmt"
	"image"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/train"
)

// showOptions are the flags of "residual data show".
type showOptions struct {
	dataOptions
	pictureOptions
	augmentOptions
	recipe, split, out string
	pictures, epochs   int
	seed               uint64
}

func newDataShow() *cobra.Command {
	var o showOptions
	c := &cobra.Command{
		Use:   "show DATA",
		Short: "a sheet of pictures as training sees them, epoch by epoch",
		Long: `Write a contact sheet: pictures of a data set as the network sees them, first as they
are and then as they are augmented in each epoch. A training run with the same options
and --seed that holds no pictures out sees exactly these; with mixup or CutMix it mixes
others, because its batches differ.`,
		Example: `  residual data show cifar10 --pad-crop 4 --flip -o sheet.png
  residual data show shapes --auto-augment trivial --erase 0.1
  residual data show ./photos --resized-crop 0.35 --jitter 0.4,0.4,0.4 --cutmix 1
  residual data show ./photos --resize letterbox --recipe finetune`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			o.data = args[0]
			return runShow(c.Context(), &o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&o.out, "out", "o", "sheet.png", "file to write, PNG")
	f.IntVar(&o.pictures, "pictures", 8, "how many pictures, of all classes in turn")
	f.IntVar(&o.epochs, "epochs", 8, "of how many epochs")
	choiceFlag(f, &o.split, "split", "which pictures", "train", "validation", "test")
	f.Uint64Var(&o.seed, "seed", 0, "of the choice and of the augmentation")
	f.StringVar(&o.recipe, "recipe", "tutorial", "whose augmentation and normalisation: "+strings.Join(train.RecipeNames(), ", "))
	section(f, "The sheet")
	o.pictureOptions.addFlags(f)
	section(f, "Pictures")
	o.augmentOptions.addFlags(f)
	section(f, "Augmentation, of training pictures")
	o.dataOptions.addFlags(f)
	section(f, "Data")
	return c
}

func runShow(ctx context.Context, o *showOptions, stdout, stderr io.Writer) error {
	const most = 64
	if o.pictures < 1 || o.pictures > most || o.epochs < 1 || o.epochs > most {
		return usageError{fmt.Errorf("--pictures %d, --epochs %d: want 1 to %d", o.pictures, o.epochs, most)}
	}
	if ext := filepath.Ext(o.out); !strings.EqualFold(ext, ".png") {
		return hint.Wrap(usageError{fmt.Errorf("-o %s: want a name that ends in .png", o.out)}, "for example: -o sheet.png")
	}
	recipe, err := train.RecipeNamed(o.recipe)
	if err != nil {
		return err
	}
	augment, err := o.augmentOptions.apply(recipe.Augment)
	if err != nil {
		return err
	}
	data, err := o.dataOptions.open(ctx, o.seed, stderr)
	if err != nil {
		return err
	}
	set := map[string]dataset.Dataset{"train": data.Train, "validation": data.Validation, "test": data.Test}[o.split]
	if set == nil || set.Len() == 0 {
		return fmt.Errorf("data set %s has no %s pictures", data.Name, o.split)
	}
	options := loader.Options{BatchSize: o.pictures, Seed: o.seed, Preprocess: o.pictureOptions.preprocess(recipe, data)}
	plain, err := loader.New(set, options)
	if err != nil {
		return err
	}
	options.Augment = augment
	augmented, err := loader.New(set, options)
	if err != nil {
		return err
	}

	chosen := everyClass(set, o.pictures, len(data.Classes), o.seed)
	sheet := report.Sheet{
		Title:    fmt.Sprintf("%s, %s split", data.Name, o.split),
		Subtitle: fmt.Sprintf("%s; seed %d", describeAugment(augment), o.seed),
		Columns:  []string{"as it is"},
	}
	for _, at := range chosen {
		sheet.Rows = append(sheet.Rows, report.SheetRow{Name: data.Classes[set.Label(at)], Detail: fmt.Sprintf("picture %d", at)})
	}
	for epoch := range o.epochs + 1 { // the first is the picture as it is
		from := augmented
		if epoch == 0 {
			from = plain
		} else {
			sheet.Columns = append(sheet.Columns, fmt.Sprintf("epoch %d", epoch))
		}
		b, err := from.At(ctx, max(epoch-1, 0), chosen)
		if err != nil {
			return err
		}
		for i := range chosen {
			tile := report.Tile{Picture: pictureOf(options.Preprocess, b, i)}
			if b.Partners.Valid() {
				tile.Captions = mixture(data.Classes, b.Labels.Int32s()[i], b.Partners.Int32s()[i], b.Share)
			}
			sheet.Rows[i].Tiles = append(sheet.Rows[i].Tiles, tile)
		}
	}
	img, err := sheet.Draw()
	if err != nil {
		return err
	}
	if err := writePNG(o.out, img); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %d pictures of %s in %d epochs, %d×%d pixels\n", o.out, len(chosen), data.Name, o.epochs, img.Bounds().Dx(), img.Bounds().Dy())
	return err
}

// everyClass returns positions of n pictures at most, of all classes in turn, chosen
// by the seed.
func everyClass(d dataset.Dataset, n, classes int, seed uint64) []int {
	byClass := make([][]int, classes)
	for _, at := range random.New(seed, random.Name("show")).Perm(d.Len()) {
		if k := d.Label(at); len(byClass[k]) < n {
			byClass[k] = append(byClass[k], at)
		}
	}
	var chosen []int
	for round := 0; len(chosen) < min(n, d.Len()); round++ {
		for _, positions := range byClass {
			if round < len(positions) && len(chosen) < n {
				chosen = append(chosen, positions[round])
			}
		}
	}
	return chosen
}

// pictureOf undoes the normalisation of a batch's picture.
func pictureOf(p loader.Preprocess, b loader.Batch, i int) image.Image {
	numbers := b.Images.Float32s()
	size := p.Height * p.Width * p.Channels
	numbers = numbers[i*size : (i+1)*size]
	out := image.NewNRGBA(image.Rect(0, 0, p.Width, p.Height))
	for at := range p.Height * p.Width {
		for c := range 3 {
			channel := c % p.Channels
			v := float64(numbers[at*p.Channels+channel])
			if len(p.Std) > 0 {
				v *= p.Std[channel]
			}
			if len(p.Mean) > 0 {
				v += p.Mean[channel]
			}
			out.Pix[4*at+c] = uint8(max(0, min(255, math.Round(v/p.Scale))))
		}
		out.Pix[4*at+3] = 255
	}
	return out
}

// mixture is the label of a mixed picture in words, a line for each class, such as
// "62 % cat" and "38 % dog".
func mixture(classes []string, first, second int32, share float64) []string {
	percent := int(math.Round(100 * share))
	switch {
	case first == second || percent == 100:
		return []string{"100 % " + classes[first]}
	case percent == 0:
		return []string{"100 % " + classes[second]}
	}
	return []string{fmt.Sprintf("%d %% %s", percent, classes[first]), fmt.Sprintf("%d %% %s", 100-percent, classes[second])}
}

// describeAugment names what is done to pictures, in its order.
func describeAugment(a loader.Augment) string {
	var parts []string
	add := func(when bool, format string, args ...any) {
		if when {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(a.ResizedCrop > 0, "resized crop from %g of the area", a.ResizedCrop)
	add(a.PadCrop > 0, "pad-crop %d", a.PadCrop)
	add(a.Translate > 0, "translate %d", a.Translate)
	add(a.Flip, "flip")
	add(a.AlternatingFlip, "alternating flip")
	add(a.Auto == loader.TrivialAugment, "TrivialAugment")
	add(a.Auto == loader.RandAugment, "RandAugment, %d of magnitude %d", a.RandOps, a.RandMagnitude)
	j := a.Jitter
	add(j != (loader.Jitter{}), "jitter %g, %g, %g, %g", j.Brightness, j.Contrast, j.Saturation, j.Hue)
	add(a.Cutout > 0, "cutout %d", a.Cutout)
	add(a.Erase > 0, "erase %g", a.Erase)
	add(a.Mixup > 0, "mixup %g", a.Mixup)
	add(a.CutMix > 0, "CutMix %g", a.CutMix)
	if len(parts) == 0 {
		return "no augmentation"
	}
	return strings.Join(parts, "; ")
}
