package cpu

import (
	"testing"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/model"
)

// Joined instructions give the bits of those that they stand for, over three steps of
// training, and nothing else of a residual network's loops remains. Sets whose loops
// have fused multiply-adds while their bfloat16 kernels are generic round otherwise, and so
// do the last channels of numbers that eight does not divide.
func TestJoinedMaps(t *testing.T) {
	basic := small
	basic.Filters = 24
	bottleneck := basic
	bottleneck.Block, bottleneck.Blocks, bottleneck.Filters = model.Bottleneck, []int{2, 2}, 16
	preact := basic
	preact.PreAct = true
	large := basic
	large.Stem, large.Height, large.Width = model.LargeStem, 33, 40
	for name, c := range map[string]model.Config{"basic": basic, "bottleneck": bottleneck, "preact": preact, "large": large} {
		var options []Options
		for _, k := range kernel.Supported() {
			options = append(options, Options{Precision: "float32", InstructionSet: k.Set.String(), Threads: 2})
			if k.Set != kernel.AVX2 && k.Set != kernel.AVX512 {
				options = append(options, Options{Precision: "bfloat16", InstructionSet: k.Set.String(), Threads: 2})
			}
		}
		for _, o := range options {
			e := open(t, o)
			e.plain = true
			plain := newTraining(t, e, c, 5)
			joined := newTraining(t, open(t, o), c, 5)
			counts := map[loopOp]int{}
			for _, l := range joined.program.loops {
				for _, in := range l.instrs {
					counts[in.op]++
				}
			}
			if counts[loopNormalise] == 0 || counts[loopGateSums] == 0 {
				t.Fatalf("%s, %s, %s: %d and %d joined instructions", name, o.Precision, o.InstructionSet, counts[loopNormalise], counts[loopGateSums])
			}
			if c.Block == model.Bottleneck && counts[loopWiden]+counts[loopNarrow] > 0 {
				t.Errorf("%s, %s, %s: %d copies of maps are left in loops", name, o.Precision, o.InstructionSet, counts[loopWiden]+counts[loopNarrow])
			}
			for range 2 {
				plain.step(t)
				joined.step(t)
			}
			want, got := plain.bits(t, plain.step(t)), joined.bits(t, joined.step(t))
			if i := firstDifference(got, want); i >= 0 {
				t.Errorf("%s, %s, %s: element %d of %d has bits %#x, want %#x", name, o.Precision, o.InstructionSet, i, len(want), got[i], want[i])
			}
		}
	}
}
