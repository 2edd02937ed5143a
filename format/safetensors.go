package format

import (
	"bytes"
	"io"
	"os"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/tensor"
)

// safetensorsFormat is weights with metadata (package safetensors).
var safetensorsFormat = Format{
	Name: "safetensors", About: "safetensors (.safetensors)", Extensions: []string{".safetensors"},
	Detect: func(_ string, head []byte) bool {
		return len(head) > 8 && head[8] == '{' && bytes.Equal(head[5:8], make([]byte, 3)) // a header below 1 TB of JSON
	},
	Read: readSafetensors,
	Write: func(path string, m *artifact.Model, o artifact.WriteOptions) error {
		if err := o.Refuse("safetensors", artifact.WriteOptions{}); err != nil {
			return err
		}
		return atomicfile.WriteChecked(path, func(w io.Writer) error { return writeSafetensors(w, m) }, o.Check)
	},
	Inspect: func(path string) (artifact.Listing, error) {
		f, err := safetensors.ReadFile(path)
		if err != nil {
			return artifact.Listing{}, err
		}
		return artifact.Listing{Bytes: sizeOf(path), Tensors: artifact.List(f.Tensors()), Metadata: f.Metadata}, nil
	},
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func readSafetensors(path string) (*artifact.Model, error) {
	f, err := safetensors.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return fromTensors(f.Tensors(), f.Metadata)
}

// fromTensors makes a Model of tensors by the network that metadata describe or,
// where they describe none, by what can be recognised.
func fromTensors(tensors []safetensors.Named, metadata map[string]string) (*artifact.Model, error) {
	c, described, err := artifact.Config(metadata)
	if err != nil {
		return nil, err
	}
	var m *artifact.Model
	if described {
		byName := map[string]tensor.Tensor{}
		steps := 0
		for _, n := range tensors {
			if counted, ok := artifact.BatchesTracked(n); ok {
				steps = max(steps, counted)
				continue
			}
			byName[n.Name] = n.Tensor
		}
		m, err = artifact.Build(c, byName, "its metadata describe the network: "+c.Name)
		if err == nil {
			m.Steps = steps
		}
	} else {
		m, err = artifact.Recognise(tensors)
	}
	if err != nil {
		return nil, err
	}
	return m, m.ReadMetadata(metadata)
}

// writeSafetensors writes m under torchvision's names with num_batches_tracked,
// as PyTorch's own state_dict has it.
func writeSafetensors(w io.Writer, m *artifact.Model) error {
	metadata, err := m.WriteMetadata()
	if err != nil {
		return err
	}
	metadata["format"] = "pt" // what transformers and timm ask for: tensors in PyTorch's layout
	return safetensors.Write(w, m.StateDict(), metadata)
}
