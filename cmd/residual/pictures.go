package main

import (
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/train"
)

// pictureOptions say how pictures become what the network sees.
type pictureOptions struct {
	imageSize int
	resize    string
	cropPct   float64
	normalize string
	mean, std []float64

	flags *pflag.FlagSet
}

func (o *pictureOptions) addFlags(f *pflag.FlagSet) {
	o.flags = f
	f.IntVar(&o.imageSize, "image-size", 0, "height and width that pictures are resized to (default: the data's, 224 where they differ)")
	choiceFlag(f, &o.resize, "resize", "how: cut the longer side, ignore the aspect ratio, or fill up with black", loader.Crop, loader.Squash, loader.Letterbox)
	f.Float64Var(&o.cropPct, "crop-pct", 0, "share of the shorter side that --resize crop shows, such as 0.875 (default: all of it)")
	choiceFlag(f, &o.normalize, "normalize", "subtract the mean and divide by the standard deviation of this data set's pictures", append([]string{"recipe", "none"}, loader.Normalizations()...)...)
	numbersFlag(f, &o.mean, "mean", "mean of each channel instead, in units of 0 to 1, such as 0.5,0.5,0.5")
	numbersFlag(f, &o.std, "std", "standard deviation of each channel")
}

// preprocess is what recipe and data say where no flag does.
func (o *pictureOptions) preprocess(recipe train.Recipe, data *dataset.Data) loader.Preprocess {
	height, width := data.Height, data.Width
	if height == 0 || width == 0 {
		height, width = 224, 224
	}
	p := loader.Preprocess{Height: height, Width: width, Channels: data.Channels, Resize: o.resize, Scale: 1.0 / 255}
	if recipe.Normalize {
		p.Mean, p.Std = normalizationOf(data)
	}
	return o.override(p)
}

// override changes a preprocessing where flags, the environment or a file say so.
func (o *pictureOptions) override(p loader.Preprocess) loader.Preprocess {
	set := o.flags.Changed
	overrideInto(set, "image-size", &p.Height, o.imageSize)
	overrideInto(set, "image-size", &p.Width, o.imageSize)
	overrideInto(set, "resize", &p.Resize, o.resize)
	if set("resize") && p.Resize != loader.Crop {
		p.CropPct = 0
	}
	overrideInto(set, "crop-pct", &p.CropPct, o.cropPct)
	switch o.normalize {
	case "recipe":
	case "none":
		p.Mean, p.Std = nil, nil
	default: // the flag takes no other names
		p.Mean, p.Std, _ = loader.Normalization(o.normalize)
	}
	overrideInto(set, "mean", &p.Mean, o.mean)
	overrideInto(set, "std", &p.Std, o.std)
	return p
}
