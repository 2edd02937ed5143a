package train

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
)

// Init names the weights that a run began with.
type Init struct {
	Run        string `json:"run"`                  // the run directory, as given
	Checkpoint string `json:"checkpoint,omitempty"` // as LoadWeights takes it
	// NewHead says that the dense layer was drawn anew, for other classes; all
	// the rest is the other run's.
	NewHead bool `json:"new_head"`
	// SHA256 is over the tensors that were taken.
	SHA256 string `json:"sha256"`
}

// Freeze is the first phase of fine-tuning (fastai's fine_tune): for some epochs
// only the dense layer learns, with a learning rate and schedule of its own, as
// the gradients of a head that knows nothing would spoil the rest. Then the
// optimizer begins anew, with everything.
//
// While the rest is frozen its batch normalisation is in inference mode, as in
// Keras with trainable=False (fastai lets it go on training): it uses the moving
// statistics and leaves them alone. So the network up to the head is one and the
// same function in every batch, nothing of what it has learnt is lost before the
// head has learnt anything, and there is no backward pass through it.
type Freeze struct {
	Epochs       int            `json:"epochs"`
	LearningRate float64        `json:"learning_rate"`
	Schedule     optim.Schedule `json:"schedule"`
}

func (c Config) checkFinetune() error {
	f := c.Freeze
	switch {
	case c.LRMult != 0 && !(c.LRMult >= 1 && !math.IsInf(c.LRMult, 0)):
		return fmt.Errorf("lr-mult is %v, want 1 or more", c.LRMult)
	case f == nil:
		return nil
	case c.Init == nil:
		return hint.Wrap(fmt.Errorf("freezing %d epochs: the weights are random, there is nothing to keep", f.Epochs), "begin with the weights of a run: --init RUN")
	case f.Epochs < 1 || f.Epochs > c.Epochs:
		return fmt.Errorf("freezing %d of %d epochs: want 1 to all", f.Epochs, c.Epochs)
	case !(f.LearningRate > 0 && !math.IsInf(f.LearningRate, 0)):
		return fmt.Errorf("learning rate of the frozen epochs is %v, want a positive number", f.LearningRate)
	}
	return f.Schedule.Check()
}

// frozenEpochs is how many epochs train the head alone.
func (c Config) frozenEpochs() int {
	if c.Freeze == nil {
		return 0
	}
	return c.Freeze.Epochs
}

// groups are the learning rates of the parts of the network: geometrically from
// the run's divided by LRMult in the stem to the run's in the head, as fastai's
// slice(lr/mult, lr); and in each part, of all but batch normalisation's β and,
// with ShiftRate, of these.
func (c Config) groups() optim.Groups {
	var scales []float64
	depth := func(*graph.Node) int { return 0 }
	if c.LRMult > 1 {
		n := c.Model.Depths()
		scales = make([]float64, n)
		for i := range scales {
			scales[i] = math.Pow(c.LRMult, float64(i)/float64(n-1)-1)
		}
		depth = func(p *graph.Node) int { return c.Model.Depth(p.Name) }
	}
	shift := c.Optimizer.ShiftRate
	if shift == 0 || shift == 1 {
		return optim.Groups{Scales: scales, Of: depth}
	}
	if scales == nil {
		scales = []float64{1}
	}
	n := len(scales)
	decays := make([]float64, 2*n)
	for i := range n {
		scales = append(scales, shift*scales[i])
		decays[i], decays[n+i] = 1, 1/shift
	}
	return optim.Groups{Scales: scales, Decays: decays, Of: func(p *graph.Node) int {
		if p.Variable.Shift {
			return n + depth(p)
		}
		return depth(p)
	}}
}

// mode is what a pass through the network is for.
type mode int

const (
	inference mode = iota // moving statistics, no smoothing of labels
	training              // everything learns
	headOnly              // the dense layer learns, the rest is as in inference
	settled               // everything learns but the stem
)

// modeOf is the mode of training in an epoch, from 0.
func (c Config) modeOf(epoch int) mode {
	switch {
	case epoch < c.frozenEpochs():
		return headOnly
	case c.StemEpochs > 0 && epoch >= c.frozenEpochs()+c.StemEpochs:
		return settled
	}
	return training
}

// whole reports whether a mode trains the network, with batch normalisation by
// batches.
func (m mode) whole() bool { return m == training || m == settled }

// trained are the parameters that a mode trains.
func (m mode) trained(b *graph.Builder) []*graph.Node {
	parameters := b.Variables(graph.Parameter)
	switch m {
	case headOnly:
		return slices.DeleteFunc(parameters, func(p *graph.Node) bool { return !model.InHead(p.Name) })
	case settled:
		return slices.DeleteFunc(parameters, func(p *graph.Node) bool { return model.InStem(p.Name) })
	}
	return parameters
}

// initialCheckpoint is the name under which a run keeps the weights that it took
// from another one: a run directory alone is enough to train it again.
const initialCheckpoint = "initial"

// NewInit reads the configuration of a run whose weights another run is to begin
// with, for the given classes.
func NewInit(path string, classes []string) (*Init, Config, error) {
	run, source, err := Open(path)
	if err != nil {
		return nil, source, err
	}
	result := resultOf(run, source)
	in := &Init{Run: path, Checkpoint: result.String(), NewHead: !slices.Equal(classes, source.Classes)}
	weights, _, err := readWeights(run, in.Checkpoint, source)
	if err != nil {
		return nil, source, err
	}
	in.SHA256 = in.hash(in.taken(weights))
	return in, source, nil
}

// taken are the tensors that a run takes from those of another one.
func (in *Init) taken(weights []safetensors.Named) []safetensors.Named {
	return slices.DeleteFunc(slices.Clone(weights), func(n safetensors.Named) bool { return in.NewHead && model.InHead(n.Name) })
}

func (in *Init) hash(taken []safetensors.Named) string {
	sum := sha256.New()
	_ = HashVariables(sum, rundir.Checkpoint{Weights: taken}) // a hash takes everything
	return hex.EncodeToString(sum.Sum(nil))
}

// load reads the tensors that the run begins with, from its own directory where
// they are already, else from the other run, and checks that they are those that
// the configuration names.
func (in *Init) load(own *rundir.Dir) ([]safetensors.Named, error) {
	path, checkpoint := in.Run, in.Checkpoint
	if own != nil && hasCheckpoint(own, initialCheckpoint) {
		path, checkpoint = own.Path(), initialCheckpoint
	}
	run, source, err := Open(path)
	if err != nil {
		return nil, fmt.Errorf("the weights to begin with: %w", err)
	}
	if checkpoint == initialCheckpoint {
		checkpoint += ":" + RawWeights
	}
	weights, _, err := readWeights(run, checkpoint, source)
	if err != nil {
		return nil, fmt.Errorf("the weights to begin with: %w", err)
	}
	taken := in.taken(weights)
	if got := in.hash(taken); got != in.SHA256 {
		return nil, fmt.Errorf("the weights to begin with, %s, have changed: their SHA-256 is %.12s…, the configuration has %.12s…", run.Path(), got, in.SHA256)
	}
	return taken, nil
}

func hasCheckpoint(run *rundir.Dir, name string) bool {
	_, has := checkpointNamed(run, name)
	return has
}

func checkpointNamed(run *rundir.Dir, name string) (rundir.CheckpointInfo, bool) {
	all, err := run.Checkpoints()
	i := slices.IndexFunc(all, func(c rundir.CheckpointInfo) bool { return c.Name == name })
	if err != nil || i < 0 {
		return rundir.CheckpointInfo{}, false
	}
	return all[i], true
}

// saveInitial keeps the weights that were taken from another run.
func (t *Trainer) saveInitial() error {
	if t.config.Init == nil || t.run == nil || hasCheckpoint(t.run, initialCheckpoint) {
		return nil
	}
	weights, err := t.config.Init.load(t.run)
	if err != nil {
		return err
	}
	return t.keepGoing(t.run.SaveCheckpoint(initialCheckpoint, rundir.Checkpoint{Weights: weights}))
}

// thaw begins the optimizer anew when the frozen epochs are over, and frees the
// programs of a phase that has ended. It does nothing that a resumed run would not
// do again.
func (t *Trainer) thaw() error {
	if t.at.Epoch == 0 || t.at.Step != 0 {
		return nil
	}
	if before := t.config.modeOf(t.at.Epoch - 1); before == training && t.config.modeOf(t.at.Epoch) == settled {
		t.clock.restart() // these steps take less long
		return errors.Join(t.programs[stepKind{training, true}].Close(), t.programs[stepKind{training, false}].Close())
	}
	if t.at.Epoch != t.config.frozenEpochs() {
		return nil
	}
	t.at.Thawed = t.at.GlobalStep
	t.clock.restart() // these steps take longer
	return errors.Join(t.programs[stepKind{headOnly, true}].Close(), t.programs[stepKind{headOnly, false}].Close(), t.clearState())
}
