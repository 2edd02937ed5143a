package torch

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/residual-ml/residual/model"
)

// Every network has a module with all its layers; what the conventions differ in
// is written out.
func TestModule(t *testing.T) {
	for _, name := range model.Names() {
		for _, convention := range []model.Convention{model.Torch, model.Keras} {
			c, err := model.Named(name, convention, 32, 32, 3, 10)
			if err != nil {
				t.Fatal(err)
			}
			text, err := Module(c)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			g, err := c.Graph(1)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range g.Variables {
				layer := v.Name[:strings.LastIndexByte(v.Name, '.')]
				if !strings.Contains(text, fmt.Sprintf("put(self, %q, ", layer)) || !strings.Contains(text, fmt.Sprintf("layer(%q)(", layer)) {
					t.Errorf("%s: no layer %s", name, layer)
				}
			}
			momentum := cmp.Or(c.NormRate, 0.01) // of PyTorch, whose default is 0.1
			if keras := strings.Contains(text, fmt.Sprintf("eps=0.001, momentum=%v)", momentum)); keras != (convention == model.Keras) {
				t.Errorf("%s, %s: keras's ε is %v", name, convention, keras)
			}
			if uneven := strings.Contains(text, "(0, 1, 0, 1)"); strings.HasPrefix(name, "resnet1") && uneven != (convention == model.Keras) {
				t.Errorf("%s, %s: uneven padding is %v", name, convention, uneven)
			}
		}
	}
	c, err := model.Named("resnet20", model.Torch, 32, 32, 3, 10)
	if err != nil {
		t.Fatal(err)
	}
	c.Name = `"""; import os`
	if text, err := Module(c); err == nil {
		t.Errorf("a name that ends the text is written: %s", text)
	}
}

func TestArchitecture(t *testing.T) {
	for _, name := range []string{"resnet18", "resnet50"} {
		c, err := model.Named(name, model.Torch, 128, 128, 3, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Name = "mine"
		if got := Architecture(c); got != name {
			t.Errorf("%s is %q", name, got)
		}
		c.Convention = model.Keras
		if got := Architecture(c); got != "" {
			t.Errorf("%s in keras convention is %q", name, got)
		}
	}
}
