package rundir

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

// addSeeds adds the seeds of a fuzz target and makes sure that there are some of
// both kinds: to accept and to refuse.
func addSeeds(f *testing.F, seeds []string, accepts func(string) bool) {
	f.Helper()
	accepted := 0
	for _, seed := range seeds {
		f.Add([]byte(seed))
		if accepts(seed) {
			accepted++
		}
	}
	if accepted < 2 || len(seeds)-accepted < 2 {
		f.Fatalf("of %d seeds %d are accepted, want two or more of each kind", len(seeds), accepted)
	}
}

// sealedText is a file with this content and the checksum that fits.
func sealedText(t testing.TB, content []byte) []byte {
	t.Helper()
	s, err := seal(json.RawMessage(content))
	if err != nil {
		return content // it is no JSON
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	someSum  = `{"size_bytes":10,"sha256":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}`
	someInfo = `"dir":"step-00000010","step":10,"epoch":1,"has_state":true,"model":` + someSum + `,"state":` + someSum
)

// FuzzIndex: what parses is written and read again as the same, and leads to no
// place outside checkpoints/. The input is tried as a file and, since a mutation
// does not find a checksum, as the content of one.
func FuzzIndex(f *testing.F) {
	accepts := func(s string) bool {
		_, err := parseIndex(sealedText(f, []byte(s)))
		return err == nil
	}
	addSeeds(f, []string{
		`{}`, `{"last":{` + someInfo + `}}`, `{"last":{` + someInfo + `},"best":{` + someInfo + `}}`,
		`{"best":{"dir":"step-1","step":0,"epoch":0,"has_state":false,"model":` + someSum + `}}`,
		`null`, `[]`, `{"last":null}`, `{"last":{"dir":"../../etc","step":1}}`, `{"":{` + someInfo + `}}`, `{"a/b":{` + someInfo + `}}`,
		strings.Replace(`{"last":{`+someInfo+`}}`, `"step":10`, `"step":-1`, 1), strings.Replace(`{"last":{`+someInfo+`}}`, "abc", "xyz", 1),
		string(sealedText(f, []byte(`{"last":{`+someInfo+`}}`))), `{"content":{},"sha256":""}`, `{"content":`, ``,
	}, accepts)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, sealedText(t, data)} {
			index, err := parseIndex(file)
			if err != nil {
				continue
			}
			for name, info := range index {
				if strings.ContainsAny(name+info.Dir, `/\`) || !strings.HasPrefix(info.Dir, "step-") {
					t.Errorf("checkpoint %q in %q", name, info.Dir)
				}
			}
			text, err := json.Marshal(index)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := parseIndex(sealedText(t, text)); err != nil || !reflect.DeepEqual(again, index) {
				t.Errorf("%v became %v, error %v", index, again, err)
			}
		}
	})
}

// FuzzNote is the same for checkpoint.json.
func FuzzNote(f *testing.F) {
	addSeeds(f, []string{
		`{"names":["last","best"],` + someInfo + `}`, `{"names":null,` + someInfo + `}`, `{` + someInfo + `}`,
		`{"names":["a/b"],` + someInfo + `}`, `{"names":{}}`, `null`, `{}`, `"x"`, ``,
		string(sealedText(f, []byte(`{"names":["last"],`+someInfo+`}`))),
	}, func(s string) bool {
		_, err := parseNote(sealedText(f, []byte(s)))
		return err == nil
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, sealedText(t, data)} {
			n, err := parseNote(file)
			if err != nil {
				continue
			}
			text, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := parseNote(sealedText(t, text)); err != nil || !reflect.DeepEqual(again, n) {
				t.Errorf("%v became %v, error %v", n, again, err)
			}
		}
	})
}

// FuzzHistory: what parses is written and read again as the same.
func FuzzHistory(f *testing.F) {
	rows := History{epoch(1), epoch(2), {Epoch: -3, Loss: math.Inf(-1), Accuracy: math.NaN(), Seconds: 1e-308}}
	addSeeds(f, []string{
		rows.text(), History(nil).text(), "", "epoch,lo", "epoch\n1\n2\n", "new,loss,epoch\nx,0.5,1\n", rows.text() + "3,1.5,0.2",
		"epoch,epoch\n1,2\n", "a,b\n1,2\n", "epoch,loss\n1\n", "epoch,loss\nx,1\n", "epoch,loss\n1,abc\n", "\n", "epoch\r\n1\r\n",
		"epoch\n99999999999999999999\n",
	}, func(s string) bool {
		_, err := parseHistory(s)
		return err == nil
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHistory(string(data))
		if err != nil {
			return
		}
		again, err := parseHistory(h.text())
		if err != nil || again.text() != h.text() || len(again) != len(h) {
			t.Errorf("%v became %v, error %v", h, again, err)
		}
	})
}

// FuzzMetrics: a follower gets the same lines whether the file comes at once or
// in pieces, and all of them are JSON that ended with a newline.
func FuzzMetrics(f *testing.F) {
	addSeeds(f, []string{
		"", "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n", "{\"epoch\":1}\n{\"st", "\n\n", "\x00\x00\n{\"step\":6}\n",
		"{}\r\n", "3\n[]\nnull\n", "{\"step\":\"x\",\"epoch\":1e400}\n", "{\"step\":1}{\n",
	}, func(s string) bool {
		_, _, err := splitLines([]byte(s))
		return err == nil
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, length, _ := splitLines(data)
		if want := int64(bytes.LastIndexByte(data, '\n') + 1); length != want {
			t.Errorf("read to byte %d, want %d", length, want)
		}
		for _, line := range whole {
			if !json.Valid(line) || bytes.IndexByte(line, '\n') >= 0 {
				t.Errorf("line %q", line)
			}
			if staysAfter(line, math.MaxInt, math.MaxInt) && bytes.TrimSpace(line)[0] != '{' {
				t.Errorf("%q stays, but is no object", line)
			}
		}
		for _, cut := range []int{0, len(data) / 3, len(data) / 2, len(data)} {
			first, n, _ := splitLines(data[:cut])
			rest, _, _ := splitLines(data[n:])
			if got := append(first, rest...); len(got) != len(whole) || len(got) > 0 && !reflect.DeepEqual(got, whole) {
				t.Errorf("cut at %d: lines %q, want %q", cut, got, whole)
			}
		}
	})
}
