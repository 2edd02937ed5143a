package loader

import "slices"

// normalization is the mean and standard deviation of a data set's training
// pictures, per channel over all pixels, in units of the 0..1 range.
type normalization struct {
	name      string
	mean, std []float64
}

// TestNormalization computes those of data sets from their pictures, where they
// are there. (Some projects give 0.2023, 0.1994, 0.2010 for CIFAR-10: the mean of
// per-picture deviations, which is smaller.)
var normalizations = []normalization{
	{"cifar10", []float64{0.4914, 0.4822, 0.4465}, []float64{0.2470, 0.2435, 0.2616}},
	{"cifar100", []float64{0.5071, 0.4865, 0.4409}, []float64{0.2673, 0.2564, 0.2762}},
	{"mnist", []float64{0.1307}, []float64{0.3081}},
	{"fashion-mnist", []float64{0.2860}, []float64{0.3530}},
	{"shapes", []float64{0.4973, 0.5059, 0.4973}, []float64{0.3860, 0.3825, 0.3854}},
	// torchvision's, of all its weights for photographs.
	{"imagenet", []float64{0.485, 0.456, 0.406}, []float64{0.229, 0.224, 0.225}},
}

// Normalizations lists the names that Normalization knows.
func Normalizations() []string {
	names := make([]string, len(normalizations))
	for i, n := range normalizations {
		names[i] = n.name
	}
	return names
}

// Normalization returns a Preprocess's Mean and Std by the name of a data set; ok
// is false when the name is unknown.
func Normalization(name string) (mean, std []float64, ok bool) {
	i := slices.IndexFunc(normalizations, func(n normalization) bool { return n.name == name })
	if i < 0 {
		return nil, nil, false
	}
	return slices.Clone(normalizations[i].mean), slices.Clone(normalizations[i].std), true
}
