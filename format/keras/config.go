package keras

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// layer is a layer, or a model, in a configuration. Keras 2 and 3 agree on this
// much.
type layer struct {
	Module     *string         `json:"module"`
	Class      string          `json:"class_name"`
	Config     json.RawMessage `json:"config"`
	Registered *string         `json:"registered_name"`
	Name       string          `json:"name"`
	Inbound    json.RawMessage `json:"inbound_nodes"`
}

// container is the configuration of a model.
type container struct {
	Name    string          `json:"name"`
	Layers  []layer         `json:"layers"`
	Inputs  json.RawMessage `json:"input_layers"`
	Outputs json.RawMessage `json:"output_layers"`
	Shape   []*int          `json:"build_input_shape"`
}

// options are the options of all layers that are read, by Keras's names.
type options struct {
	Name          string          `json:"name"`
	DType         json.RawMessage `json:"dtype"`
	BatchShape    []*int          `json:"batch_shape"`       // Keras 3
	BatchInput    []*int          `json:"batch_input_shape"` // Keras 2
	Filters       int             `json:"filters"`
	Kernel        pair            `json:"kernel_size"`
	Strides       pair            `json:"strides"`
	Dilation      pair            `json:"dilation_rate"`
	Pool          pair            `json:"pool_size"`
	Groups        *int            `json:"groups"`
	Padding       json.RawMessage `json:"padding"`
	DataFormat    *string         `json:"data_format"`
	Activation    json.RawMessage `json:"activation"`
	UseBias       *bool           `json:"use_bias"`
	Axis          json.RawMessage `json:"axis"`
	Epsilon       *float64        `json:"epsilon"`
	Center        *bool           `json:"center"`
	Scale         json.RawMessage `json:"scale"` // of a batch normalisation a bool, of a rescaling a number
	Offset        json.RawMessage `json:"offset"`
	Renorm        bool            `json:"renorm"`
	MaxValue      *float64        `json:"max_value"`
	NegativeSlope json.RawMessage `json:"negative_slope"`
	Threshold     json.RawMessage `json:"threshold"`
	Units         int             `json:"units"`
	Target        []int           `json:"target_shape"`
	Mean          json.RawMessage `json:"mean"`
	Variance      json.RawMessage `json:"variance"`
	Invert        bool            `json:"invert"`
	Function      json.RawMessage `json:"function"`
}

// pair is a number for both axes of the plane or one for each.
type pair [2]int

func (p *pair) UnmarshalJSON(b []byte) error {
	var n int
	if json.Unmarshal(b, &n) == nil {
		*p = pair{n, n}
		return nil
	}
	var two []int
	if err := json.Unmarshal(b, &two); err != nil {
		return err
	}
	if len(two) != 2 {
		return fmt.Errorf("%d numbers, want one or two", len(two))
	}
	*p = pair{two[0], two[1]}
	return nil
}

// parseLayer reads the outermost object of a configuration.
func parseLayer(text []byte) (layer, error) {
	var l layer
	if err := json.Unmarshal(text, &l); err != nil {
		return l, err
	}
	if l.Class == "" {
		return l, errors.New("there is no class_name: this is no configuration of Keras")
	}
	return l, nil
}

// isContainer reports whether l is a model of Keras's own classes.
func (l layer) isContainer() bool {
	return l.custom() == "" && (l.Class == "Functional" || l.Class == "Model" || l.Class == "Sequential")
}

// custom names the class where it is not Keras's own.
func (l layer) custom() string {
	switch {
	case l.Registered != nil && strings.Contains(*l.Registered, ">"):
		return *l.Registered
	case strings.Contains(l.Class, ">"):
		return l.Class
	case l.Module != nil && *l.Module != "keras" && !strings.HasPrefix(*l.Module, "keras.") && !strings.HasPrefix(*l.Module, "tf_keras.") && *l.Module != "builtins":
		return *l.Module + "." + l.Class
	}
	return ""
}

// container reads l as a model.
func (l layer) container() (container, error) {
	var c container
	config := l.Config
	if b := bytes.TrimSpace(config); len(b) > 0 && b[0] == '[' { // Sequential before Keras 2.2.3
		err := json.Unmarshal(b, &c.Layers)
		return c, err
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return c, fmt.Errorf("%s %q: %w", l.Class, l.Name, err)
	}
	return c, nil
}

// summary counts the layers of a configuration by class, for inspect.
func (l layer) summary() string {
	c, err := l.container()
	if err != nil || len(c.Layers) == 0 {
		return fmt.Sprintf("a model of the class %s", l.Class)
	}
	count := map[string]int{}
	var classes []string
	for _, x := range c.Layers {
		if count[x.Class]++; count[x.Class] == 1 {
			classes = append(classes, x.Class)
		}
	}
	slices.Sort(classes)
	var parts []string
	for _, x := range classes {
		parts = append(parts, fmt.Sprintf("%d %s", count[x], x))
	}
	return fmt.Sprintf("a %s model of %s", l.Class, strings.Join(parts, ", "))
}

// edge is a tensor in a configuration: an output of a call of a layer.
type edge struct {
	layer string
	node  int
}

// oneRef reads input_layers or output_layers: [name,node,tensor], or a list or
// dictionary of one such.
func oneRef(raw json.RawMessage) (edge, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return edge{}, err
	}
	if dict, ok := v.(map[string]any); ok {
		if len(dict) != 1 {
			return edge{}, fmt.Errorf("%d tensors, want one", len(dict))
		}
		for _, x := range dict {
			v = x
		}
	}
	if r, ok := asRef(v); ok {
		return r, nil
	}
	if list, ok := v.([]any); ok {
		if len(list) != 1 {
			return edge{}, fmt.Errorf("%d tensors, want one", len(list))
		}
		if r, ok := asRef(list[0]); ok {
			return r, nil
		}
	}
	return edge{}, fmt.Errorf("%.80s, want [layer,call,tensor]", raw)
}

// asRef reads [name,node,tensor], with Keras 2's dictionary of arguments or
// without.
func asRef(v any) (edge, bool) {
	list, ok := v.([]any)
	if !ok || len(list) < 3 {
		return edge{}, false
	}
	name, isName := list[0].(string)
	node, isNode := list[1].(float64)
	if !isName || !isNode || node != float64(int(node)) {
		return edge{}, false
	}
	return edge{name, int(node)}, true
}

// inboundNodes reads the calls of a layer. In Keras 3 a call is an object whose
// args are tensors; in Keras 2 it is a list of [name,node,tensor,{arguments}], or
// just one of these.
func inboundNodes(raw json.RawMessage) ([][]edge, error) {
	var calls []any
	if err := json.Unmarshal(raw, &calls); err != nil {
		return nil, err
	}
	var nodes [][]edge
	for _, call := range calls {
		var refs []edge
		if object, ok := call.(map[string]any); ok {
			kerasTensors(object["args"], &refs)
			if kwargs, ok := object["kwargs"].(map[string]any); ok {
				for key, v := range kwargs {
					before := len(refs)
					kerasTensors(v, &refs)
					if len(refs) > before {
						return nil, fmt.Errorf("a tensor as argument %q", key)
					}
				}
			}
		} else if r, ok := asRef(call); ok {
			refs = append(append(refs, r), argumentRef(call)...)
		} else if list, ok := call.([]any); ok {
			for _, x := range list {
				r, ok := asRef(x)
				if !ok {
					return nil, fmt.Errorf("%.80s, want [layer,call,tensor]", fmt.Sprint(x))
				}
				refs = append(append(refs, r), argumentRef(x)...)
			}
		} else {
			return nil, fmt.Errorf("%.80s", fmt.Sprint(call))
		}
		nodes = append(nodes, refs)
	}
	return nodes, nil
}

// argumentRef is the second operand of Keras 2's operators: {"y": [name,node,tensor]}.
func argumentRef(call any) []edge {
	list := call.([]any)
	if len(list) < 4 {
		return nil
	}
	arguments, _ := list[3].(map[string]any)
	if r, ok := asRef(arguments["y"]); ok {
		return []edge{r}
	}
	return nil
}

// kerasTensors collects the tensors in Keras 3's arguments, in order.
func kerasTensors(v any, refs *[]edge) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			kerasTensors(x, refs)
		}
	case map[string]any:
		if v["class_name"] == "__keras_tensor__" {
			if config, ok := v["config"].(map[string]any); ok {
				if r, ok := asRef(config["keras_history"]); ok {
					*refs = append(*refs, r)
				}
			}
		}
	}
}

// zero reports whether an option is absent, null or 0, possibly as an array of
// one, which Keras 2 writes.
func zero(raw json.RawMessage) bool {
	v, err := floats(raw, 0)
	return err == nil && len(v) == 1 && v[0] == 0
}

// floats reads a number or numbers, however deep in lists; def where there is
// none.
func floats(raw json.RawMessage, def float64) ([]float64, error) {
	var v any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
	}
	if object, ok := v.(map[string]any); ok { // a numpy array
		if config, ok := object["config"].(map[string]any); ok {
			v = config["value"]
		} else {
			v = object["value"]
		}
	}
	var out []float64
	var collect func(any) bool
	collect = func(v any) bool {
		switch v := v.(type) {
		case float64:
			out = append(out, v)
			return true
		case []any:
			return !slices.ContainsFunc(v, func(x any) bool { return !collect(x) })
		}
		return false
	}
	switch {
	case v == nil:
		return []float64{def}, nil
	case !collect(v) || len(out) == 0:
		return nil, fmt.Errorf("%.60s, want numbers", raw)
	}
	return out, nil
}

// axisOf reads an axis, which may be in a list; -1 where there is none.
func axisOf(raw json.RawMessage) (int, bool) {
	v, err := floats(raw, -1)
	if err != nil || len(v) != 1 || v[0] != float64(int(v[0])) {
		return 0, false
	}
	return int(v[0]), true
}
