package main

import "testing"

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"layer1.0 größe 猫 ┃ 3×3 · 'a' \"b\"": "layer1.0 größe 猫 ┃ 3×3 · 'a' \"b\"",
		"a\x1b[2Jb":      `a\x1b[2Jb`,
		"a\nb\tc\rd\x00": `a\nb\tc\rd\x00`,
		"\xff\xc3":       `\xff\xc3`,
		"\ufffd":         "\ufffd",
		"a\u202eb\u009b": `a\u202eb\u009b`,
		"\\":             `\`,
	} {
		if got := plain(text); got != want {
			t.Errorf("plain(%q) = %q, want %q", text, got, want)
		}
	}
	if got := plainLines("one\x1b\ntwo"); got != `one\x1b`+"\ntwo" {
		t.Errorf("plainLines: %q", got)
	}
}
