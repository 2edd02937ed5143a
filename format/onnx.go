package format

import (
	"io"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/onnx"
	"github.com/residual-ml/residual/internal/atomicfile"
)

// onnxFormat is ONNX (package onnx).
var onnxFormat = Format{
	Name: "onnx", About: "ONNX (.onnx)", Extensions: []string{".onnx"},
	Detect: onnx.Looks, Read: onnx.ReadFile, Inspect: onnx.Inspect,
	Write: func(path string, m *artifact.Model, o artifact.WriteOptions) error {
		return atomicfile.WriteChecked(path, func(w io.Writer) error { return onnx.Write(w, m, o) }, o.Check)
	},
}
