package format

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/torch"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
)

// torchFormat is what torch.save writes (package torch).
var torchFormat = Format{
	Name: "torch", About: "PyTorch (.pth, .pt, .th)", Extensions: []string{".pth", ".pt", ".th", ".bin", ".ckpt", ".tar"},
	Detect: isTorch, Read: readTorch, Write: writeTorch,
	Inspect: func(path string) (artifact.Listing, error) {
		f, err := torch.ReadFile(path)
		if err != nil {
			return artifact.Listing{}, err
		}
		return artifact.Listing{Bytes: sizeOf(path), Tensors: artifact.List(f.Tensors), Metadata: f.Extra, Notes: torchNotes(f)}, nil
	},
}

// isTorch: a pickle of protocol 2 or later, or a zip whose first entry is what
// PyTorch begins with, in a folder.
func isTorch(_ string, head []byte) bool {
	if len(head) > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 {
		return true
	}
	if len(head) < 30 || !bytes.HasPrefix(head, []byte("PK\x03\x04")) {
		return false
	}
	n := int(binary.LittleEndian.Uint16(head[26:]))
	_, name, inFolder := strings.Cut(string(head[30:min(len(head), 30+n)]), "/")
	return inFolder && slices.Contains([]string{"data.pkl", "version", "byteorder", ".format_version", "constants.pkl"}, name)
}

func torchNotes(f *torch.File) []string {
	notes := []string{"layout: " + f.Layout}
	if f.Key != "" {
		notes = append(notes, fmt.Sprintf("the tensors are those of the entry %q", f.Key))
	}
	if len(f.Others) > 0 {
		notes = append(notes, "not read: "+strings.Join(f.Others, ", "))
	}
	return notes
}

func readTorch(path string) (*artifact.Model, error) {
	f, err := torch.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := fromTensors(f.Tensors, f.Extra)
	if err != nil {
		return nil, err
	}
	m.Recognised = append(torchNotes(f), m.Recognised...)
	return m, nil
}

// writeTorch writes a state_dict and, where the network is none of torchvision's,
// beside it a Python module that builds it.
func writeTorch(path string, m *artifact.Model, o artifact.WriteOptions) error {
	if err := o.Refuse("torch", artifact.WriteOptions{}); err != nil {
		return err
	}
	metadata, err := m.WriteMetadata()
	if err != nil {
		return err
	}
	check := o.Check
	if torch.Architecture(m.Config) == "" {
		python, err := torch.Module(m.Config)
		if err != nil {
			return err
		}
		if err := ours(ModulePath(path)); err != nil {
			return err
		}
		check = func(temp string) error { // the module is replaced with the weights or not at all
			if o.Check != nil {
				if err := o.Check(temp); err != nil {
					return err
				}
			}
			return atomicfile.WriteFile(ModulePath(path), []byte(python))
		}
	}
	return atomicfile.WriteChecked(path, func(w io.Writer) error { return torch.Write(w, m.StateDict(), metadata) }, check)
}

// ours refuses to replace a Python file that residual has not written: nobody has
// named it.
func ours(path string) error {
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	head, err := readHead(path)
	if err == nil && !torch.IsModule(head) {
		err = hint.Wrap(fmt.Errorf("%s is to hold the network's Python module, but is there and not of residual export", path),
			"name another file with -o, or move this one away")
	}
	return err
}

// ModulePath is where the Python module of a network lies that was written to
// path: weights.pth has weights_model.py.
func ModulePath(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + "_model.py"
}
