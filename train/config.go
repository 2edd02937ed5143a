// Package train is the loop: steps, validations, checkpoints, history; and the
// recipes that fill in a Config. It knows networks only as graphs and hardware only
// as an engine. runTrain in cmd/residual/train.go shows how a program trains with it.
package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
)

// Config is everything that decides what a run computes, after all defaults; a
// run directory keeps it as config.json, and together with the data and an
// instruction set of the processor it fixes every bit of the result.
type Config struct {
	Recipe     string            `json:"recipe"`
	Data       DataConfig        `json:"data"`
	Model      model.Config      `json:"model"`
	Classes    []string          `json:"classes"` // names, in the order of the network's outputs
	Preprocess loader.Preprocess `json:"preprocess"`
	Optimizer  optim.Config      `json:"optimizer"`

	// ScoreTest says how the test split is scored, once, after the run: with no
	// views besides the picture itself (none), or with the mean of several too (flip,
	// six); "": not at all.
	ScoreTest string `json:"score_test,omitempty"`
	// Expected is what the recipe promised when the run began; nil: nothing, or the
	// options differ from the recipe's.
	Expected *Expectation `json:"expected,omitempty"`

	// Init: the weights are those of another run; nil: drawn by Seed.
	Init *Init `json:"init,omitempty"`
	// Freeze: the first epochs train the dense layer alone; nil: none.
	Freeze *Freeze `json:"freeze,omitempty"`
	// LRMult: the stem learns with the learning rate divided by it, the dense
	// layer with the learning rate, what is between with something between; 0
	// and 1: all alike.
	LRMult float64 `json:"lr_mult,omitempty"`

	// StemEpochs is how many epochs, after frozen ones, the stem learns in; then it
	// stays as it is, and steps are cheaper; 0: in all. Batch normalisation in it goes
	// on following the pictures.
	StemEpochs int `json:"stem_epochs,omitempty"`

	// Accumulate is the number of batches that one update is made from, by the
	// mean of their gradients over all their images; 0 and 1: every batch.
	Accumulate int `json:"accumulate,omitempty"`
	// ClipNorm bounds the Euclidean norm of all gradients together, ClipValue each
	// element of a gradient; 0: no bound. Before weight decay, as in PyTorch.
	ClipNorm  float64 `json:"clip_norm,omitempty"`
	ClipValue float64 `json:"clip_value,omitempty"`
	// EMA is the decay of a moving average of all weights that is kept, validated
	// and saved beside them; 0: none.
	EMA float64 `json:"ema,omitempty"`

	// L2 is the factor of the penalty L2·Σ kernel² on the dense layer's kernel.
	// It is part of every printed loss.
	L2             float64 `json:"l2"`
	LabelSmoothing float64 `json:"label_smoothing"`

	Schedule  optim.Schedule `json:"schedule"`
	Augment   loader.Augment `json:"augment"`
	Epochs    int            `json:"epochs"`
	BatchSize int            `json:"batch_size"`
	Seed      uint64         `json:"seed"`
	EvalEvery int            `json:"eval_every"` // steps between validations; 0: only after each epoch

	// Watching the validation (the training values where there is none).
	Monitor   string        `json:"monitor"` // val_loss or val_accuracy
	EarlyStop EarlyStop     `json:"early_stop"`
	Plateau   Plateau       `json:"plateau"`
	KeepBest  bool          `json:"keep_best"` // the best checkpoint by Monitor; never by the test split
	MaxTime   time.Duration `json:"max_time_ns,omitempty"`

	// What happens when things go wrong, and how often the run is saved, decide
	// nothing that a step computes.
	OnNaN       string `json:"on_nan"`        // stop or rollback
	OnSaveError string `json:"on_save_error"` // stop or continue
	SaveEvery   int    `json:"save_every"`    // steps between checkpoints; 0: only after each epoch
	Keep        int    `json:"keep"`          // checkpoints of single epochs that stay besides the last

	ClassWeights  []float32 `json:"class_weights,omitempty"`  // of the loss, by class
	SampleWeights []float32 `json:"sample_weights,omitempty"` // of drawing, by class

	Engine    string `json:"engine"`
	Precision string `json:"precision"`
}

// Values of OnNaN and OnSaveError.
const (
	Stop         = "stop"
	RollBack     = "rollback"
	KeepTraining = "continue"
)

// DataConfig says what a run was trained and validated on.
type DataConfig struct {
	Source     string `json:"source"` // a name or a path, as given
	Dir        string `json:"dir,omitempty"`
	Validation string `json:"validation"` // test: the official test split; validation: a split of the data's own; held-out: of the training images; none
	ValImages  int    `json:"val_images,omitempty"`
	LimitTrain int    `json:"limit_train,omitempty"`
	LimitVal   int    `json:"limit_val,omitempty"`
	ClassMap   string `json:"class_map,omitempty"`
	OnBadImage string `json:"on_bad_image,omitempty"`
	// Undivided: a folder or manifest without a validation split gave no fifth of its
	// pictures to one before ValImages were held out, if any.
	Undivided bool `json:"undivided,omitempty"`
}

// most is more epochs, images in a batch and batches in an update than anyone wants, so
// that their products with numbers of pictures are no larger than an int.
const most = 1 << 24

// Check reports the first field that cannot work.
func (c Config) Check() error {
	if err := c.Model.Check(); err != nil {
		return err
	}
	if err := c.Preprocess.Check(); err != nil {
		return err
	}
	if err := c.Optimizer.Check(); err != nil {
		return err
	}
	if err := errors.Join(c.Schedule.Check(), c.Augment.Check(c.Preprocess.Height, c.Preprocess.Width), c.checkWatch(), c.checkFinetune()); err != nil {
		return err
	}
	p, m := c.Preprocess, c.Model
	switch {
	case p.Height != m.Height || p.Width != m.Width || p.Channels != m.Channels:
		return fmt.Errorf("preprocessing makes %d×%d×%d images, model %s takes %d×%d×%d",
			p.Height, p.Width, p.Channels, m.Name, m.Height, m.Width, m.Channels)
	case len(c.Classes) != m.Classes:
		return fmt.Errorf("%d class names for a model of %d classes", len(c.Classes), m.Classes)
	case c.Epochs < 1:
		return fmt.Errorf("epochs is %d, want at least 1", c.Epochs)
	case c.BatchSize < 1:
		return fmt.Errorf("batch size is %d, want at least 1", c.BatchSize)
	case c.Epochs > most || c.BatchSize > most || c.Accumulate > most:
		return fmt.Errorf("%d epochs, %d images in a batch, %d batches in an update: want at most %d of each", c.Epochs, c.BatchSize, c.Accumulate, most)
	case c.EvalEvery < 0 || c.SaveEvery < 0 || c.Keep < 0:
		return fmt.Errorf("eval every %d steps, save every %d, keep %d: want numbers from 0", c.EvalEvery, c.SaveEvery, c.Keep)
	case c.OnNaN != Stop && c.OnNaN != RollBack:
		return fmt.Errorf("on-nan is %q, want stop or rollback", c.OnNaN)
	case c.OnSaveError != Stop && c.OnSaveError != KeepTraining:
		return fmt.Errorf("on-save-error is %q, want stop or continue", c.OnSaveError)
	case c.MaxTime < 0:
		return fmt.Errorf("max time is %v, want a positive duration", c.MaxTime)
	case !slices.Contains([]string{"", "none", "flip", "six"}, c.ScoreTest):
		return fmt.Errorf("score-test is %q, want none, flip or six", c.ScoreTest)
	case c.StemEpochs < 0:
		return fmt.Errorf("the stem learns in %d epochs, want 1 or more, or 0 for all", c.StemEpochs)
	case c.Accumulate < 0:
		return fmt.Errorf("accumulate is %d batches, want 1 or more", c.Accumulate)
	case !(c.ClipNorm >= 0) || math.IsInf(c.ClipNorm, 0) || !(c.ClipValue >= 0) || math.IsInf(c.ClipValue, 0):
		return fmt.Errorf("gradients are clipped to norm %v and value %v, want positive numbers, or 0 for none", c.ClipNorm, c.ClipValue)
	case !(c.EMA >= 0 && c.EMA < 1):
		return fmt.Errorf("ema is %v, want 0 ≤ decay < 1", c.EMA)
	case !(c.L2 >= 0):
		return fmt.Errorf("l2 is %v, want 0 or more", c.L2)
	case !(c.LabelSmoothing >= 0 && c.LabelSmoothing < 1):
		return fmt.Errorf("label smoothing is %v, want 0 ≤ smoothing < 1", c.LabelSmoothing)
	}
	return nil
}
