package format

import (
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/keras"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
)

// kerasFormat is what Keras saves (package keras): archives, and HDF5 files,
// which are only read.
var kerasFormat = Format{
	Name: "keras", About: "Keras (.keras, .h5, .weights.h5)", Extensions: []string{".keras", ".h5", ".hdf5"},
	Detect: isKeras, Read: keras.ReadFile, Inspect: keras.InspectFile,
	Write: func(path string, m *artifact.Model, o artifact.WriteOptions) error {
		if ext := filepath.Ext(path); ext == ".h5" || ext == ".hdf5" {
			return hint.Wrap(fmt.Errorf("HDF5 files are read and not written"), "write a .keras archive, which Keras 3 loads")
		}
		return atomicfile.WriteChecked(path, func(w io.Writer) error { return keras.Write(w, m, o) }, o.Check)
	},
}

// isKeras: HDF5, or a zip whose first member is one of a .keras archive's.
func isKeras(_ string, head []byte) bool {
	if keras.IsHDF5(head) {
		return true
	}
	if len(head) < 30 || !keras.IsArchive(head) {
		return false
	}
	n := int(binary.LittleEndian.Uint16(head[26:]))
	return slices.Contains([]string{"metadata.json", "config.json", "model.weights.h5"}, string(head[30:min(len(head), 30+n)]))
}
