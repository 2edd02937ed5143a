package artifact

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
)

// Keys of the metadata that formats with room for text carry: safetensors in
// __metadata__, ONNX in metadata_props, Keras in its configuration. Values are
// JSON but for architecture, steps and the checksum. The first three are also those of a run's
// checkpoints, so that model.safetensors of a run can be read alone.
const (
	modelKey        = "model"
	classesKey      = "classes"
	preprocessKey   = "preprocess"
	goldenKey       = "golden"
	stepsKey        = "steps"
	checksumKey     = "weights_sha256" // Model.SHA256
	architectureKey = "architecture"
)

// WriteMetadata describes m, but for its tensors, as text by key. The same model
// gives the same text.
func (m *Model) WriteMetadata() (map[string]string, error) {
	text := map[string]string{}
	set := func(key string, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("metadata %s: %w", key, err)
		}
		text[key] = string(b)
		return nil
	}
	text[architectureKey] = m.Config.Name
	text[checksumKey] = m.SHA256()
	if err := set(modelKey, m.Config); err != nil {
		return nil, err
	}
	if m.Classes != nil {
		if err := set(classesKey, m.Classes); err != nil {
			return nil, err
		}
	}
	if m.Preprocess != nil {
		if err := set(preprocessKey, m.Preprocess); err != nil {
			return nil, err
		}
	}
	if len(m.Golden) > 0 {
		if err := set(goldenKey, m.Golden); err != nil {
			return nil, err
		}
	}
	if m.Steps > 0 {
		text[stepsKey] = strconv.Itoa(m.Steps)
	}
	return text, nil
}

// Config returns the network that metadata describe; ok is false where they
// describe none.
func Config(text map[string]string) (c model.Config, ok bool, err error) {
	if text[modelKey] == "" {
		return c, false, nil
	}
	if err := json.Unmarshal([]byte(text[modelKey]), &c); err != nil {
		return c, false, fmt.Errorf("metadata %s: %w", modelKey, err)
	}
	if err := c.Check(); err != nil {
		return c, false, fmt.Errorf("metadata %s: %w", modelKey, err)
	}
	return c, true, nil
}

// ReadMetadata fills m's classes, preprocessing, golden vectors, steps and checksum from
// metadata that WriteMetadata wrote, or a run's checkpoint has. What contradicts
// m's network is an error.
func (m *Model) ReadMetadata(text map[string]string) error {
	get := func(key string, v any) error {
		if text[key] == "" {
			return nil
		}
		if err := json.Unmarshal([]byte(text[key]), v); err != nil {
			return fmt.Errorf("metadata %s: %w", key, err)
		}
		return nil
	}
	var p loader.Preprocess
	for _, err := range []error{get(classesKey, &m.Classes), get(preprocessKey, &p), get(goldenKey, &m.Golden)} {
		if err != nil {
			return err
		}
	}
	if text[preprocessKey] != "" {
		m.Preprocess = &p
	}
	if s := text[stepsKey]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return fmt.Errorf("metadata %s: %q, want a number from 0", stepsKey, s)
		}
		m.Steps = n
	}
	// A program that turned the file into another network, by folding batch
	// normalisation for example, may have kept the metadata.
	if c, ok, err := Config(text); err == nil && ok && reflect.DeepEqual(c, m.Config) {
		m.Checksum = text[checksumKey]
	}
	return m.Check()
}

// WithoutGolden is m without its golden vectors; both share the rest.
func (m *Model) WithoutGolden() *Model {
	without := *m
	without.Golden = nil
	return &without
}
