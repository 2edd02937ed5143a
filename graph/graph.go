package graph

import (
	"fmt"
	"io"

	"github.com/residual-ml/residual/tensor"
)

// Kind says whether a node's elements are real numbers, in the precision the
// engine computes in, or 32-bit integers, such as labels.
type Kind uint8

// The kinds of elements.
const (
	Real Kind = iota
	Integer
)

// Node is one value of a Graph: an operation on earlier nodes. Nodes are made
// by a Builder, which checks shapes; they must not be changed.
type Node struct {
	ID     int          // position in Graph.Nodes
	Op     Op           // what is computed
	Name   string       // layer it belongs to, such as "layer1.0.conv1"; the full name of an input or variable
	Inputs []*Node      // operands, in the order Op's documentation gives
	Shape  tensor.Shape // of the output
	Kind   Kind         // of the output's elements

	// At most one of these belongs to an Op; its documentation says which.
	Conv     ConvAttrs
	Pool     PoolAttrs
	Norm     NormAttrs
	MatMul   MatMulAttrs
	Channels ChannelAttrs
	OneHot   OneHotAttrs
	Variable VariableAttrs
	Stride   int     // of OpSubsample and OpSubsampleBackward
	Value    float64 // of OpConstant
}

// Update replaces a variable's value at the end of a run.
type Update struct{ Variable, Value *Node }

// Graph is a finished computation. It holds only nodes that an output, update
// or the guard needs, in an order in which operands come first.
type Graph struct {
	Nodes     []*Node
	Inputs    []*Node // OpInput, in the order Program.Run takes tensors
	Variables []*Node // OpVariable, in the order they were declared
	Outputs   []*Node // in the order Program.Run returns tensors
	Updates   []Update
	Guard     *Node // scalar; updates are withheld unless it is finite; nil: none
}

// ConvAttrs belong to OpConv and its backward operations.
type ConvAttrs struct {
	Stride int
	Pad    Padding
}

// Padding counts rows and columns of zeros on each side. The sides differ in
// TensorFlow's 'same' rule: stride 2, kernel 3, even input pads 0 before, 1 after.
type Padding struct{ Top, Bottom, Left, Right int }

// PoolAttrs belong to OpMaxPool, OpAvgPool and their backward operations.
// Padding never wins a maximum. CountPad says whether padding counts in the
// average's denominator: true in PyTorch by default, false in Keras.
type PoolAttrs struct {
	Size, Stride int
	Pad          Padding
	CountPad     bool
}

// NormAttrs belong to OpBatchNorm and its backward operations.
type NormAttrs struct {
	Epsilon float64
	// Training says that mean and variance are those of the batch itself, so
	// that the gradient flows through them too.
	Training bool
}

// MatMulAttrs transpose an operand before the product.
type MatMulAttrs struct{ TransposeA, TransposeB bool }

// ChannelAttrs belong to OpPadChannels (zero channels added before and after)
// and OpSliceChannels (channels dropped before and after).
type ChannelAttrs struct{ Before, After int }

// OneHotAttrs belong to OpOneHot: smoothing s gives 1-s+s/K to the label and
// s/K to every other class (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567).
type OneHotAttrs struct {
	Classes   int
	Smoothing float64
}

// Role says what a variable is for.
type Role uint8

// The roles of variables.
const (
	Parameter Role = iota // trained by the optimizer
	Statistic             // moving mean or variance of batch normalisation
	State                 // the optimizer's own, such as moments
	Fixed                 // part of the network, set before training and left as it is
)

func (r Role) String() string { return [...]string{"parameter", "statistic", "state", "fixed"}[r] }

// VariableAttrs belong to OpVariable.
type VariableAttrs struct {
	Role Role
	Init Init
	// Decay says that weight decay applies: true for kernels, false for biases
	// and batch normalisation.
	Decay bool
	// Shift says that this is the β of a batch normalisation.
	Shift bool
}

// Init is how a variable starts. Package model draws the numbers.
type Init struct {
	Kind          InitKind
	FanIn, FanOut int // of kernels: receptive field times channels in, out
}

// InitKind is a distribution of initial values.
type InitKind uint8

// The initialisations that networks use.
const (
	Zeros InitKind = iota
	Ones
	// GlorotUniform is uniform in ±√(6/(FanIn+FanOut)) (Glorot, Bengio 2010),
	// Keras's default for every kernel.
	GlorotUniform
	// HeNormalFanOut is normal with deviation √(2/FanOut) (He et al. 2015,
	// https://arxiv.org/abs/1502.01852), torchvision's for convolutions.
	HeNormalFanOut
	// LeCunUniform is uniform in ±1/√FanIn, PyTorch's default for dense kernels
	// and their biases.
	LeCunUniform
	// Dirac lets the first C filters of a convolution pass one of its C channels
	// each, as they are; filters beyond C are LeCunUniform (airbench's partial
	// identity, https://arxiv.org/abs/2404.00498, section 3.3).
	Dirac
	// Whitening is computed from pictures: see model.Whitening. Until then it is
	// LeCunUniform.
	Whitening
)

// Variable returns the variable of that full name, or nil.
func (g *Graph) Variable(name string) *Node {
	for _, v := range g.Variables {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// Dump writes the graph as text, a line per node.
func (g *Graph) Dump(w io.Writer) error {
	for _, n := range g.Nodes {
		if _, err := fmt.Fprintln(w, n); err != nil {
			return err
		}
	}
	for _, u := range g.Updates {
		if _, err := fmt.Fprintf(w, "%s ← %%%d\n", u.Variable.Name, u.Value.ID); err != nil {
			return err
		}
	}
	return nil
}

// String writes a node as "%12 conv(%3, %11) [32,32,32,64] layer1.0.conv1".
func (n *Node) String() string {
	s := fmt.Sprintf("%%%d %v(", n.ID, n.Op)
	for i, in := range n.Inputs {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%%%d", in.ID)
	}
	s += ") " + n.Shape.String()
	if n.Name != "" {
		s += " " + n.Name
	}
	return s
}
