package torch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
)

// Limits of one pickle, far above what a checkpoint needs: ResNet-152 with Adam's
// moments takes 0.1 million instructions and 0.4 MB.
const (
	maxPickle       = 16 << 20 // bytes
	maxInstructions = 4 << 20
	maxText         = 1 << 20 // bytes of one text
)

// The values of a pickle: nil, bool, int64, float64, string, tuple, and these.
type (
	tuple  []any
	list   struct{ items []any }
	dict   struct{ entries []entry }
	entry  struct{ key, value any }
	bigInt string // little-endian two's complement, of more than 8 bytes
	// function is a class or function by name; what it may be decides call.
	function struct{ module, name string }
	marker   struct{}
)

func (f function) String() string { return f.module + "." + f.name }

// String goes no deeper than one level: a few tuples of tuples can be exponentially
// long.
func (t tuple) String() string {
	if len(t) > 16 {
		return kind(t)
	}
	parts := make([]string, len(t))
	for i, v := range t {
		if _, nested := v.(tuple); nested {
			parts[i] = kind(v)
		} else {
			parts[i] = plain(v)
		}
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func (d *dict) get(key string) (any, bool) {
	for i := len(d.entries) - 1; i >= 0; i-- { // a later assignment wins
		if d.entries[i].key == any(key) {
			return d.entries[i].value, true
		}
	}
	return nil, false
}

// errExecutable is in the error of a pickle that names something else than
// tensors and containers.
var errExecutable = errors.New("only tensors and containers are read")

// unpickler runs one pickle after the other from a reader.
type unpickler struct {
	r    *bufio.Reader
	left int64 // bytes that may still be read of this pickle
	at   int64 // bytes read of all pickles

	// persistent resolves a reference to a storage.
	persistent func(id tuple) (any, error)

	stack []any
	memo  map[uint32]any
}

func newUnpickler(r io.Reader, persistent func(id tuple) (any, error)) *unpickler {
	return &unpickler{r: bufio.NewReader(r), persistent: persistent}
}

// load runs the pickle that begins here, to its STOP, and returns its value.
func (u *unpickler) load() (any, error) {
	u.stack, u.memo, u.left = u.stack[:0], map[uint32]any{}, maxPickle
	for range maxInstructions {
		op, err := u.byte()
		if err != nil {
			return nil, err
		}
		if op == '.' { // STOP
			return u.pop()
		}
		if err := u.step(op); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("pickle: more than %d instructions", maxInstructions)
}

func (u *unpickler) bytes(n int64) ([]byte, error) {
	if n < 0 || n > u.left {
		return nil, fmt.Errorf("pickle: %d bytes wanted at byte %d, more than the %d that a pickle may have", n, u.at, maxPickle)
	}
	if n > maxText {
		return nil, fmt.Errorf("pickle: a text of %d bytes at byte %d, want at most %d", n, u.at, maxText)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(u.r, b); err != nil {
		return nil, cutShort(err)
	}
	u.left -= n
	u.at += n
	return b, nil
}

func (u *unpickler) byte() (byte, error) {
	if u.left < 1 {
		return 0, fmt.Errorf("pickle: longer than %d bytes", maxPickle)
	}
	b, err := u.r.ReadByte()
	if err != nil {
		return 0, cutShort(err)
	}
	u.left--
	u.at++
	return b, nil
}

func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("pickle: the file ends within it: it is cut short")
	}
	return fmt.Errorf("pickle: %w", err)
}

// uint reads an unsigned little-endian number of n bytes.
func (u *unpickler) uint(n int64) (uint64, error) {
	b, err := u.bytes(n)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(append(b, make([]byte, 8-n)...)), nil
}

func (u *unpickler) line() (string, error) {
	var b strings.Builder
	for {
		c, err := u.byte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return b.String(), nil
		}
		if b.Len() > 1000 {
			return "", errors.New("pickle: a name of more than 1000 bytes")
		}
		b.WriteByte(c)
	}
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	n := len(u.stack) - 1
	if n < 0 {
		return nil, errors.New("pickle: its stack is empty")
	}
	v := u.stack[n]
	if _, ok := v.(marker); ok {
		return nil, errors.New("pickle: a mark where a value is wanted")
	}
	u.stack = u.stack[:n]
	return v, nil
}

func (u *unpickler) top() (any, error) {
	v, err := u.pop()
	if err == nil {
		u.push(v)
	}
	return v, err
}

// popMark takes everything above the last mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(marker); ok {
			items := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return items, nil
		}
	}
	return nil, errors.New("pickle: no mark on its stack")
}

// step runs one instruction of Python's pickletools that torch.save writes, of
// protocol 2 to 4. Others are refused.
func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := u.byte()
		if err == nil && (v < 2 || v > 5) {
			err = fmt.Errorf("pickle: protocol %d, want 2 to 5", v)
		}
		return err
	case 0x95: // FRAME: 8 bytes of its length
		_, err := u.bytes(8)
		return err
	case '(':
		u.push(marker{})
	case '0': // POP
		_, err := u.pop()
		return err
	case '1': // POP_MARK
		_, err := u.popMark()
		return err
	case '2': // DUP
		v, err := u.top()
		u.push(v)
		return err

	case 'N':
		u.push(nil)
	case 0x88:
		u.push(true)
	case 0x89:
		u.push(false)
	case 'K', 'M', 'J': // BININT1, BININT2, BININT
		size := map[byte]int64{'K': 1, 'M': 2, 'J': 4}[op]
		v, err := u.uint(size)
		if op == 'J' {
			v = uint64(int64(int32(v)))
		}
		u.push(int64(v))
		return err
	case 0x8a, 0x8b: // LONG1, LONG4
		n, err := u.uint(map[byte]int64{0x8a: 1, 0x8b: 4}[op])
		if err != nil {
			return err
		}
		b, err := u.bytes(int64(n))
		if err != nil {
			return err
		}
		u.push(integer(b))
	case 'G': // BINFLOAT, big-endian
		b, err := u.bytes(8)
		if err != nil {
			return err
		}
		u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	case 'X', 0x8c, 0x8d, 'U', 'T', 'C', 'B': // BINUNICODE, SHORT_, -8; SHORT_BINSTRING, BINSTRING; SHORT_BINBYTES, BINBYTES
		size := map[byte]int64{'X': 4, 0x8c: 1, 0x8d: 8, 'U': 1, 'T': 4, 'C': 1, 'B': 4}[op]
		n, err := u.uint(size)
		if err != nil {
			return err
		}
		b, err := u.bytes(int64(n))
		if err != nil {
			return err
		}
		u.push(string(b))

	case ']':
		u.push(&list{})
	case 'a': // APPEND
		v, err := u.pop()
		if err != nil {
			return err
		}
		return u.extend([]any{v})
	case 'e': // APPENDS
		items, err := u.popMark()
		if err != nil {
			return err
		}
		return u.extend(items)
	case 'l': // LIST
		items, err := u.popMark()
		u.push(&list{items})
		return err
	case ')':
		u.push(tuple(nil))
	case 't': // TUPLE
		items, err := u.popMark()
		u.push(tuple(items))
		return err
	case 0x85, 0x86, 0x87: // TUPLE1, 2, 3
		items := make(tuple, op-0x84)
		for i := len(items) - 1; i >= 0; i-- {
			v, err := u.pop()
			if err != nil {
				return err
			}
			items[i] = v
		}
		u.push(items)
	case '}':
		u.push(&dict{})
	case 's': // SETITEM
		v, err := u.pop()
		if err != nil {
			return err
		}
		k, err := u.pop()
		if err != nil {
			return err
		}
		return u.set([]any{k, v})
	case 'u': // SETITEMS
		items, err := u.popMark()
		if err != nil {
			return err
		}
		return u.set(items)
	case 'd': // DICT
		items, err := u.popMark()
		u.push(&dict{})
		if err != nil {
			return err
		}
		return u.set(items)

	case 'q', 'r': // BINPUT, LONG_BINPUT
		i, err := u.uint(map[byte]int64{'q': 1, 'r': 4}[op])
		if err != nil {
			return err
		}
		return u.put(uint32(i))
	case 0x94: // MEMOIZE
		return u.put(uint32(len(u.memo)))
	case 'h', 'j': // BINGET, LONG_BINGET
		i, err := u.uint(map[byte]int64{'h': 1, 'j': 4}[op])
		if err != nil {
			return err
		}
		v, ok := u.memo[uint32(i)]
		if !ok {
			return fmt.Errorf("pickle: nothing was remembered as %d", i)
		}
		u.push(v)

	case 'c': // GLOBAL
		module, err := u.line()
		if err != nil {
			return err
		}
		name, err := u.line()
		if err != nil {
			return err
		}
		return u.global(module, name)
	case 0x93: // STACK_GLOBAL
		name, err := u.pop()
		if err != nil {
			return err
		}
		module, err := u.pop()
		if err != nil {
			return err
		}
		m, okM := module.(string)
		n, okN := name.(string)
		if !okM || !okN {
			return errors.New("pickle: the name of a class is no text")
		}
		return u.global(m, n)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, err := u.pop()
		if err != nil {
			return err
		}
		f, err := u.pop()
		if err != nil {
			return err
		}
		called, ok := f.(function)
		with, isTuple := args.(tuple)
		if !ok || !isTuple {
			return fmt.Errorf("pickle: %s is called with %s", kind(f), kind(args))
		}
		v, err := call(called, with)
		if err != nil {
			return err
		}
		u.push(v)
	case 'b': // BUILD: the attributes of an OrderedDict (_metadata) are not needed
		if _, err := u.pop(); err != nil {
			return err
		}
		v, err := u.top()
		if err != nil {
			return err
		}
		switch v.(type) {
		case *dict, *lazy:
			return nil
		}
		return fmt.Errorf("pickle: attributes of %s: %w", kind(v), errExecutable)
	case 'Q': // BINPERSID
		id, err := u.pop()
		if err != nil {
			return err
		}
		t, ok := id.(tuple)
		if !ok || u.persistent == nil {
			return fmt.Errorf("pickle: a reference to the outside is %s, want a tuple", kind(id))
		}
		v, err := u.persistent(t)
		if err != nil {
			return err
		}
		u.push(v)
	default:
		return fmt.Errorf("pickle: instruction %#02x at byte %d is none that a state_dict needs: %w", op, u.at-1, errExecutable)
	}
	return nil
}

func (u *unpickler) put(i uint32) error {
	v, err := u.top()
	if err == nil {
		u.memo[i] = v
	}
	return err
}

func (u *unpickler) extend(items []any) error {
	v, err := u.top()
	if err != nil {
		return err
	}
	l, ok := v.(*list)
	if !ok {
		return fmt.Errorf("pickle: %s is appended to as to a list", kind(v))
	}
	l.items = append(l.items, items...)
	return nil
}

func (u *unpickler) set(items []any) error {
	v, err := u.top()
	if err != nil {
		return err
	}
	d, ok := v.(*dict)
	if !ok || len(items)%2 != 0 {
		return fmt.Errorf("pickle: %d keys and values are set in %s", len(items), kind(v))
	}
	for i := 0; i < len(items); i += 2 {
		switch items[i].(type) {
		case string, int64, bool, float64, nil, bigInt:
		case tuple: // nobody looks such a key up
		default:
			return fmt.Errorf("pickle: a key is %s", kind(items[i]))
		}
		d.entries = append(d.entries, entry{items[i], items[i+1]})
	}
	return nil
}

// integer is a LONG of Python, little-endian two's complement.
func integer(b []byte) any {
	if len(b) > 8 {
		return bigInt(b)
	}
	var v int64
	for i := range b {
		v |= int64(b[i]) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v -= 1 << (8 * n)
	}
	return v
}

// global pushes a class or function that may occur.
func (u *unpickler) global(module, name string) error {
	f := function{module, name}
	_, isStorage := storages[name]
	switch {
	case module == "torch" && isStorage, f == orderedDict, f == rebuildTensor, f == rebuildTensor1, f == rebuildParameter, f == torchSize, f == torchDevice:
		u.push(f)
		return nil
	}
	err := fmt.Errorf("pickle: it wants %s.%s: %w", module, name, errExecutable)
	if strings.HasPrefix(module, "torch") || module == "argparse" || module == "numpy" || strings.HasPrefix(module, "numpy.") {
		return hint.Wrap(err, `save the weights alone, in Python: torch.save(model.state_dict(), "weights.pth"), or of a checkpoint its "state_dict"`)
	}
	return hint.Wrap(err, "whatever reads such a file with Python's pickle runs what it names; do not, unless you know who made it")
}

var (
	orderedDict      = function{"collections", "OrderedDict"}
	rebuildTensor    = function{"torch._utils", "_rebuild_tensor_v2"}
	rebuildTensor1   = function{"torch._utils", "_rebuild_tensor"} // before PyTorch 0.4
	rebuildParameter = function{"torch._utils", "_rebuild_parameter"}
	torchSize        = function{"torch", "Size"}
	torchDevice      = function{"torch", "device"}
)

// call is what the functions that may occur do.
func call(f function, args tuple) (any, error) {
	switch f {
	case orderedDict:
		if len(args) == 0 {
			return &dict{}, nil
		}
	case torchSize, torchDevice:
		if len(args) > 0 {
			return args[0], nil
		}
	case rebuildParameter: // (data, requires_grad, backward_hooks)
		if len(args) >= 1 {
			if t, ok := args[0].(*lazy); ok {
				return t, nil
			}
		}
	case rebuildTensor, rebuildTensor1: // (storage, storage_offset, size, stride, requires_grad, backward_hooks, metadata)
		if len(args) >= 4 {
			return newLazy(args)
		}
	}
	return nil, fmt.Errorf("pickle: %s is called with %d arguments", f, len(args))
}
