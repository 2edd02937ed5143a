package cpu

import (
	"fmt"

	"github.com/residual-ml/residual/graph"
)

// Updates take effect together or not at all, and there is one copy of each
// variable. So a program computes everything that the guard or an output needs
// first. Then, in its last steps, which nothing stops, it changes the variables:
// nodes that only updates need, such as all of Adam's, are computed here, straight
// into the variable where nobody reads its old value afterwards; other new values
// are copied.

// updates checks the updates and marks what they need.
func (c *compiler) updates() error {
	for _, u := range c.g.Updates {
		v := c.p.vars.byName[u.Variable.Name]
		if v == nil {
			return fmt.Errorf("update of variable %q, which the graph does not list", u.Variable.Name)
		}
		if u.Value.Kind != graph.Real {
			return fmt.Errorf("update of variable %q: its value %v is an integer", u.Variable.Name, u.Value)
		}
		c.updated[u.Variable.Name] = true
		c.p.updated = append(c.p.updated, v)
		c.kept[u.Value.ID] = true
	}
	return nil
}

// findLate marks nodes that neither outputs nor the guard need. Only elementwise
// ones: these read a variable where they write its new value, and nowhere else.
func (c *compiler) findLate() {
	c.late = make([]bool, len(c.g.Nodes))
	value := map[*graph.Node]bool{}
	for _, u := range c.g.Updates {
		value[u.Value] = true
	}
	early := map[*graph.Node]bool{c.g.Guard: true}
	for _, n := range c.g.Outputs {
		early[n] = true
	}
	for i := len(c.g.Nodes) - 1; i >= 0; i-- {
		n := c.g.Nodes[i]
		late := n.Op.Elementwise() && !early[n] && (value[n] || len(c.users[i]) > 0)
		for _, u := range c.users[i] {
			late = late && c.late[u.ID]
		}
		c.late[i] = late
	}
}

// updateInPlace lets late loops write new values over the old ones where no other
// late loop, and no later node of the same one, reads these.
func (c *compiler) updateInPlace(late []*unit) {
	unitOf := map[*graph.Node]*unit{}
	for _, u := range late {
		for _, n := range u.nodes {
			unitOf[n] = u
		}
	}
	for _, u := range c.g.Updates {
		unit := unitOf[u.Value]
		inPlace := unit != nil && c.slotOf[u.Value.ID] == noSlot
		for _, reader := range c.users[u.Variable.ID] {
			// A broadcast is no copy: its readers read the variable.
			inPlace = inPlace && reader.Op != graph.OpBroadcast && (!c.late[reader.ID] || unitOf[reader] == unit && reader.ID <= u.Value.ID)
		}
		if inPlace {
			c.slotOf[u.Value.ID] = c.slotOf[u.Variable.ID]
		}
	}
}

// commit appends the steps that change variables.
func (c *compiler) commit(late []*unit) error {
	if c.g.Guard != nil {
		c.p.guard = c.slotOf[c.g.Guard.ID]
		c.keep(c.p.guard)
	}
	old := map[*graph.Node]slot{} // copies of variables whose old value is another's new one
	for _, u := range c.g.Updates {
		if v := u.Value; v.Op == graph.OpVariable && c.updated[v.Name] {
			old[v] = c.tempOf(v)
			c.copyStep("copy "+v.Name, old[v], c.slotOf[v.ID], v.Shape.Elements())
		}
	}
	c.p.commit = len(c.p.steps)
	for _, u := range late {
		if err := c.lower(u); err != nil {
			return err
		}
	}
	for _, u := range c.g.Updates {
		src, dst := c.slotOf[u.Value.ID], c.slotOf[u.Variable.ID]
		if s, ok := old[u.Value]; ok {
			src = s
		}
		if src != dst {
			c.copyStep("copy "+u.Variable.Name, dst, src, u.Variable.Shape.Elements())
		}
	}
	return nil
}
