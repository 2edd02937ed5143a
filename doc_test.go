package residual_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The documentation is tested like code: what it names must exist. Each test
// fails when it finds nothing to check.

// readmes are the two languages of one page: they show the same commands.
var readmes = []string{"README.md", "README.zh-CN.md"}

// markdown returns all pages by path.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.ContainsAny(d.Name()[:1], "._") || name == "runs") {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			pages[name] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"}, readmes...) {
		if pages[name] == "" {
			t.Fatalf("%s is missing or empty", name)
		}
	}
	return pages
}

// A block is a fenced or indented part of a page.
type block struct {
	language, text string
	excerpt        string // file of which the comment before it says that it is a part
}

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	span      = regexp.MustCompile("`([^`]+)`")
	ofFile    = regexp.MustCompile(`^<!-- excerpt of (\S+) -->$`)
	pathInDoc = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*(/|\.(go|md|py|s|txt))$`)
	continued = regexp.MustCompile(`\\\n\s*`) // a line that ends in \
	flagName  = regexp.MustCompile(`^--[a-z][a-z0-9-]*`)
)

// parts cuts a page into blocks of code and the prose around them.
func parts(page string) (blocks []block, prose string) {
	var text strings.Builder
	var b block
	fenced, blank := false, true
	for line := range strings.Lines(page) {
		plain := strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(plain, "```"):
			if fenced {
				blocks = append(blocks, b)
				b = block{}
			} else {
				b.language = strings.TrimPrefix(plain, "```")
			}
			fenced = !fenced
		case fenced:
			b.text += line
		case blank && strings.HasPrefix(plain, "    "):
			blocks = append(blocks, block{text: strings.TrimPrefix(line, "    ")})
			continue // blank stays: the next line is code too
		case ofFile.MatchString(plain):
			b.excerpt = ofFile.FindStringSubmatch(plain)[1]
		default:
			text.WriteString(line)
		}
		blank = plain == ""
	}
	return blocks, text.String()
}

func TestLinks(t *testing.T) {
	found := 0
	for name, page := range markdown(t) {
		_, prose := parts(page)
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" {
				continue
			}
			if _, err := os.Stat(path.Join(path.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d links in all pages: is the pattern right?", found)
	}
}

// TestNamedFiles looks at paths in `code`: model/resnet.go from the root or the
// page's directory, and resnet.go alone anywhere.
func TestNamedFiles(t *testing.T) {
	byBase := map[string]bool{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		byBase[path.Base(name)] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// What a run, a data set, a comparison or the network of a reader leaves is not in the tree.
	elsewhere := []string{"evaluations/", "checkpoints/", "log.txt", "model.py", "bench/results/"}
	found := 0
	for name, page := range markdown(t) {
		_, prose := parts(page)
		for _, m := range span.FindAllStringSubmatch(prose, -1) {
			p := m[1]
			if !pathInDoc.MatchString(p) || slices.Contains(elsewhere, p) {
				continue
			}
			found++
			_, fromRoot := os.Stat(p)
			_, fromHere := os.Stat(path.Join(path.Dir(name), p))
			if fromRoot != nil && fromHere != nil && (strings.Contains(p, "/") || !byBase[p]) {
				t.Errorf("%s names %s, which does not exist", name, p)
			}
		}
	}
	if found < 50 {
		t.Errorf("found %d files named in all pages: is the pattern right?", found)
	}
}

// commands returns the command lines of the program on a page, in order,
// without comments.
func commands(page string) []string {
	blocks, prose := parts(page)
	var lines []string
	for _, b := range blocks {
		lines = append(lines, strings.TrimRight(b.text, "\n"))
	}
	for _, m := range span.FindAllStringSubmatch(prose, -1) {
		lines = append(lines, m[1])
	}
	lines = strings.Split(continued.ReplaceAllString(strings.Join(lines, "\n"), " "), "\n")
	var found []string
	for _, line := range lines {
		line, _, _ = strings.Cut(line, " #")
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "go run ./cmd/residual "); ok {
			line = "residual " + rest
		}
		if strings.HasPrefix(line, "residual ") && !strings.Contains(line, ": ") { // not its messages
			found = append(found, line)
		}
	}
	return found
}

var programDir string // to be removed

// program builds the program once.
var program = sync.OnceValues(func() (string, error) {
	// The test cache sees only files that the test itself opens: these decide
	// about commands and flags.
	sources, err := filepath.Glob("cmd/residual/*.go")
	if err != nil || len(sources) == 0 {
		return "", fmt.Errorf("sources of cmd/residual: %v, %w", sources, err)
	}
	for _, s := range sources {
		if _, err := os.ReadFile(s); err != nil {
			return "", err
		}
	}
	if programDir, err = os.MkdirTemp("", "residual-doc"); err != nil {
		return "", err
	}
	binary := filepath.Join(programDir, "residual.exe") // the suffix harms nobody, and Windows wants it
	if out, err := exec.Command("go", "build", "-o", binary, "./cmd/residual").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/residual: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	os.Exit(code)
}

// help returns what "residual COMMAND --help" prints, or "" when there is no
// such command.
func help(t *testing.T, binary string, command ...string) string {
	t.Helper()
	out, err := exec.Command(binary, append(command, "--help")...).Output()
	usage := "\n  " + strings.Join(append([]string{"residual"}, command...), " ")
	if err != nil || !bytes.Contains(out, []byte(usage+" ")) && !bytes.Contains(out, []byte(usage+"\n")) {
		return ""
	}
	return string(out)
}

// subcommands lists the commands that do something, such as "data get".
func subcommands(t *testing.T, binary string, parent ...string) []string {
	t.Helper()
	_, list, isGroup := strings.Cut(help(t, binary, parent...), "Available Commands:\n")
	if !isGroup {
		return []string{strings.Join(parent, " ")}
	}
	list, _, _ = strings.Cut(list, "\n\n")
	var found []string
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; name != "completion" && name != "help" { // cobra's own
			found = append(found, subcommands(t, binary, append(slices.Clone(parent), name)...)...)
		}
	}
	return found
}

func hasFlag(help, flag string) bool {
	return regexp.MustCompile(`(?m)^ +(-\w, )?` + regexp.QuoteMeta(flag) + `( |$)`).MatchString(help)
}

// TestCommands: every command line of the READMEs and the changelog names a
// subcommand that exists and flags that it has.
func TestCommands(t *testing.T) {
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	pages := markdown(t)
	cache := map[string]string{}
	helpOf := func(words []string) string {
		n := 1
		if words[0] == "data" && len(words) > 1 {
			n = 2
		}
		key := strings.Join(words[:n], " ")
		if _, ok := cache[key]; !ok {
			cache[key] = help(t, binary, words[:n]...)
		}
		return cache[key]
	}
	for _, name := range append(slices.Clone(readmes), "CHANGELOG.md") {
		lines := commands(pages[name])
		if len(lines) < 5 {
			t.Errorf("%s shows %d commands: is the pattern right?", name, len(lines))
		}
		for _, line := range lines {
			words := strings.Fields(line)[1:]
			h := helpOf(words)
			if h == "" {
				t.Errorf("%s: %s: there is no such command", name, line)
				continue
			}
			for _, w := range words {
				if flag := flagName.FindString(w); flag != "" && !hasFlag(h, flag) {
					t.Errorf("%s: %s: the command has no %s", name, line, flag)
				}
			}
		}
	}

	// Every command of the program is shown, and flags that stand alone in the
	// prose belong to one of them.
	every := subcommands(t, binary)
	if len(every) < 5 {
		t.Errorf("the program has the commands %v: is the pattern right?", every)
	}
	var all strings.Builder
	for _, command := range every {
		all.WriteString(helpOf(strings.Fields(command)))
		for _, name := range readmes {
			if !slices.ContainsFunc(commands(pages[name]), func(line string) bool {
				return strings.HasPrefix(line+" ", "residual "+command+" ")
			}) {
				t.Errorf("%s does not show residual %s", name, command)
			}
		}
	}
	for _, name := range readmes {
		_, prose := parts(pages[name])
		for _, m := range span.FindAllStringSubmatch(prose, -1) {
			if strings.HasPrefix(m[1], "residual ") {
				continue
			}
			for _, w := range strings.Fields(m[1]) {
				if flag := flagName.FindString(w); flag != "" && !hasFlag(all.String(), flag) {
					t.Errorf("%s: %s: no command has %s", name, m[1], flag)
				}
			}
		}
	}
}

func TestReadmesShowTheSameCommands(t *testing.T) {
	pages := markdown(t)
	first, second := commands(pages[readmes[0]]), commands(pages[readmes[1]])
	slices.Sort(first)
	slices.Sort(second)
	first, second = slices.Compact(first), slices.Compact(second)
	for _, c := range first {
		if !slices.Contains(second, c) {
			t.Errorf("%s does not show: %s", readmes[1], c)
		}
	}
	for _, c := range second {
		if !slices.Contains(first, c) {
			t.Errorf("%s does not show: %s", readmes[0], c)
		}
	}
}

// TestCode: programs on a page compile, excerpts are what the file says.
func TestCode(t *testing.T) {
	programs, excerpts := 0, 0
	for name, page := range markdown(t) {
		blocks, _ := parts(page)
		for _, b := range blocks {
			switch {
			case b.excerpt != "":
				excerpts++
				file, err := os.ReadFile(b.excerpt)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if !bytes.Contains(file, []byte(b.text)) {
					t.Errorf("%s: the excerpt is not in %s:\n%s", name, b.excerpt, b.text)
				}
			case b.language == "go":
				programs++
				source := filepath.Join(t.TempDir(), "main.go")
				if err := os.WriteFile(source, []byte(b.text), 0o666); err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command("go", "build", "-o", os.DevNull, source).CombinedOutput(); err != nil {
					t.Errorf("%s: the program does not compile: %v\n%s", name, err, out)
				}
			}
		}
	}
	if programs < 2 || excerpts < 3 {
		t.Errorf("found %d programs and %d excerpts, want one of each in both READMEs and excerpts elsewhere", programs, excerpts)
	}
}

// TestArchitectureTable compares ARCHITECTURE.md with the table of TestLayout.
func TestArchitectureTable(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([\\w/]+)` \\|.*\\| ([^|]*?) ?\\|$")
	seen := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(markdown(t)["ARCHITECTURE.md"], -1) {
		pkg := m[1]
		seen[pkg] = true
		want, known := mayImport[pkg]
		if !known {
			t.Errorf("ARCHITECTURE.md has a package %s, layout_test.go has not", pkg)
		}
		var got []string
		for _, imp := range strings.Split(m[2], ",") {
			if imp = strings.Trim(imp, " `"); imp != "" {
				got = append(got, imp)
			}
		}
		slices.Sort(got)
		if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
			t.Errorf("ARCHITECTURE.md says that %s imports %v, layout_test.go %v", pkg, got, want)
		}
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("ARCHITECTURE.md does not have package %s of layout_test.go", pkg)
		}
	}
}
