// Package graph describes what is computed: nodes, shapes and gradients, but
// no numbers and no hardware. Left of a Graph nobody knows hardware, right of
// it nobody knows networks.
//
// One alphabet names the axes everywhere in this module:
//
//	N       images in a batch
//	H, W    height, width            OH, OW   the same of an output
//	C       channels in              OC       channels out
//	KH, KW  kernel height, width     K        classes
//
// In matrix products only, M, N and K are rows, columns and inner length.
//
// Images are [N,H,W,C] in memory. Convolution kernels are [KH,KW,C,OC] and
// dense kernels [C,OC] inside a graph; files use the names and order of
// torchvision ([OC,C,KH,KW], [OC,C]), and package model converts between them.
//
// A training step is one Graph: forward pass, loss, the backward nodes that
// Gradients appends, and the update. Updates of variables read the old values
// of all variables and take effect together, after everything is computed.
// If the graph has a guard and the guard is not finite, none takes effect.
//
// Every node has one output. Where hardware wants to compute two of them in one
// pass (a batch's mean and variance, the two sums of batch normalisation's
// backward pass), the engine fuses the nodes.
package graph
