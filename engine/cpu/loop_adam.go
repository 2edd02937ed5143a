package cpu

import (
	"slices"

	"github.com/residual-ml/residual/engine/cpu/kernel"
)

// Adam's instructions (package optim) are joined to one, which reads a parameter, its
// two averages and its gradient once and keeps all between in registers.

// adamInstr is what loopAdam needs beside loopInstr.
type adamInstr struct {
	p, m, v place                    // in memory; the gradient is loopInstr.a
	factors [kernel.AdamFactors]slot // noSlot where 1
}

// The values in Adam's instructions. keptP is p times its
// shrinkage, nextP what p becomes.
const (
	adamP = iota
	adamM
	adamV
	adamG
	keptP
	nextM
	nextV
	nextP
	adamA
	adamB
	adamC
	adamD
	adamValues
)

// adamShape lists Adam's instructions in the order in which optim makes them, with the
// values that they make and read. Those that AdamW has alone may be missing.
var adamShape = []struct {
	op        loopOp
	dst, a, b int
	factor    int  // of scalar instructions
	adamW     bool // may be missing: dst is a then, and the factor 1
}{
	{op: loopMulScalar, dst: adamA, a: adamM, factor: kernel.AdamKeep1},
	{op: loopMulScalar, dst: adamB, a: adamG, factor: kernel.AdamTake1},
	{op: loopAdd, dst: nextM, a: adamA, b: adamB},
	{op: loopMulScalar, dst: adamA, a: adamV, factor: kernel.AdamKeep2},
	{op: loopMul, dst: adamB, a: adamG, b: adamG},
	{op: loopMulScalar, dst: adamC, a: adamB, factor: kernel.AdamTake2},
	{op: loopAdd, dst: nextV, a: adamA, b: adamC},
	{op: loopMulScalar, dst: keptP, a: adamP, factor: kernel.AdamShrink, adamW: true},
	{op: loopMulScalar, dst: adamA, a: nextM, factor: kernel.AdamRate},
	{op: loopSqrt, dst: adamB, a: nextV},
	{op: loopMulScalar, dst: adamC, a: adamB, factor: kernel.AdamRoot, adamW: true},
	{op: loopAddScalar, dst: adamD, a: adamC, factor: kernel.AdamEpsilon},
	{op: loopDiv, dst: adamB, a: adamA, b: adamD},
	{op: loopSub, dst: nextP, a: keptP, b: adamB},
}

// joinAdam joins Adam's instructions where they follow each other and new values
// overwrite old ones.
func (b *loopBuilder) joinAdam() {
	l := b.loop
	for i := range l.instrs {
		for missing := range 4 { // bits: the shrinkage, the root's factor
			in, n, ok := matchAdam(l.instrs[i:], missing)
			if ok && !readsTemps(slices.Concat(l.instrs[:i], l.instrs[i+n:]), l.instrs[i:i+n]) {
				l.instrs = slices.Replace(l.instrs, i, i+n, in)
				return
			}
		}
	}
}

// matchAdam returns what the first n instructions are joined to, if these are Adam's.
func matchAdam(instrs []loopInstr, missing int) (joined loopInstr, n int, ok bool) {
	var at [adamValues]place
	var known [adamValues]bool
	var same [adamValues]int // as which value
	for v := range same {
		same[v] = v
	}
	is := func(value int, p place) bool {
		v := same[value]
		if !known[v] {
			at[v], known[v] = p, true
		}
		return at[v] == p
	}
	a := &adamInstr{}
	for _, row := range adamShape {
		if row.adamW {
			bit := missing & 1
			missing >>= 1
			if bit != 0 {
				same[row.dst], a.factors[row.factor] = same[row.a], noSlot
				continue
			}
		}
		if n == len(instrs) || instrs[n].op != row.op || !is(row.a, instrs[n].a) {
			return joined, 0, false
		}
		in := instrs[n]
		n++
		switch row.op {
		case loopMulScalar, loopAddScalar:
			a.factors[row.factor] = in.scalar
		case loopSqrt:
		default:
			if !is(row.b, in.b) {
				return joined, 0, false
			}
		}
		at[row.dst], known[row.dst] = in.dst, true
	}
	a.p, a.m, a.v = at[adamP], at[adamM], at[adamV]
	inPlace := !a.p.temp && !a.m.temp && !a.v.temp && a.p == at[nextP] && a.m == at[nextM] && a.v == at[nextV]
	return loopInstr{op: loopAdam, dst: a.p, a: at[adamG], adam: a}, n, inPlace
}

// readsTemps reports whether some instructions read temporaries that others make.
func readsTemps(readers, makers []loopInstr) bool {
	for _, in := range readers {
		for _, at := range in.operands() {
			if at.temp && slices.ContainsFunc(makers, func(m loopInstr) bool { return m.dst == at }) {
				return true
			}
		}
	}
	return false
}

// runAdam runs loopAdam on a block whose gradient is g. Scratch has room for the factors.
func (l *loop) runAdam(a *adamInstr, g, scratch []float32, at int) {
	p, n := l.p, len(g)
	factors := scratch[l.temps*l.block:][:kernel.AdamFactors]
	for i, s := range a.factors {
		factors[i] = 1
		if s != noSlot {
			factors[i] = p.mem[s][0]
		}
	}
	p.engine.kernels.Adam(p.mem[a.p.index][at:][:n], p.mem[a.m.index][at:][:n], p.mem[a.v.index][at:][:n], g, factors)
}
