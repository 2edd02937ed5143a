package dataset

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/residual-ml/residual/internal/hint"
)

func remoteOf(name string, content []byte) *remote {
	old := md5.Sum(content)
	return &remote{name, int64(len(content)), hex.EncodeToString(old[:]), sumOf(content)}
}

// quick is a downloader that does not wait.
func quick() *downloader {
	d := newDownloader(nil)
	d.wait = time.Millisecond
	return d
}

var quiet = slog.New(slog.DiscardHandler)

var payload = bytes.Repeat([]byte("all work and no play makes jack a dull boy\n"), 5000)

// fetch runs one download from handler to path.
func fetch(t *testing.T, d *downloader, path string, handler http.HandlerFunc) error {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	return d.get(t.Context(), []string{server.URL + "/x"}, path, remoteOf("x", payload))
}

func checkFile(t *testing.T, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("the file has %d bytes (%v), want the %d served", len(got), err, len(payload))
	}
	left, _ := filepath.Glob(path + ".partial*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// cutting serves content and closes the connection after n bytes of each answer.
func cutting(n int, ranges bool, etag string, asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
		start := 0
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil && ranges {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(payload)-1, len(payload)))
			w.Header().Set("Content-Length", fmt.Sprint(len(payload)-start))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			start = 0
			w.Header().Set("Content-Length", fmt.Sprint(len(payload)))
		}
		end := min(start+n, len(payload))
		w.Write(payload[start:end])
		if end < len(payload) {
			panic(http.ErrAbortHandler)
		}
	}
}

func TestDownload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	var last, calls int64
	d := quick()
	d.progress = func(name string, done, total int64) {
		if name != "x" || total != int64(len(payload)) || done < last {
			t.Errorf("progress %s %d of %d after %d", name, done, total, last)
		}
		last = done
		calls++
	}
	err := fetch(t, d, path, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(payload))
	})
	if err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
	if last != int64(len(payload)) || calls == 0 {
		t.Errorf("progress ended at %d of %d", last, len(payload))
	}
}

// The connection breaks many times; each request asks for the rest only, and
// more breaks are survived than attempts without progress are allowed.
func TestDownloadResumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	var asked []string
	if err := fetch(t, quick(), path, cutting(30000, true, `"v1"`, &asked)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
	if len(asked) != 8 || asked[1] != `bytes=30000- "v1"` || asked[7] != `bytes=210000- "v1"` {
		t.Errorf("requests %q", asked)
	}
}

// A partial file of an earlier process is continued with its tag.
func TestDownloadResumesEarlierProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write(t, path+".partial", payload[:100000])
	write(t, path+".partial.etag", []byte(`"v1"`))
	var asked []string
	if err := fetch(t, quick(), path, cutting(len(payload), true, `"v1"`, &asked)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
	if len(asked) != 1 || asked[0] != `bytes=100000- "v1"` {
		t.Errorf("requests %q", asked)
	}
}

func TestDownloadWithoutRangeSupport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write(t, path+".partial", []byte("something else entirely"))
	var asked []string
	if err := fetch(t, quick(), path, cutting(len(payload), false, "", &asked)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)

	// And where it also breaks, starting over never ends well: it is bounded.
	path = filepath.Join(t.TempDir(), "x")
	asked = nil
	err := fetch(t, quick(), path, cutting(30000, false, "", &asked))
	wantError(t, err, "broke at byte 30000 of 215000", "given up after 4 attempts", path+".partial")
	if len(asked) > 6 {
		t.Errorf("%d requests", len(asked))
	}
}

// What is on disk belongs to another file: the sums show it, and one clean
// start mends it.
func TestDownloadMendsDamagedPartial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write(t, path+".partial", bytes.Repeat([]byte("?"), 5000))
	var asked []string
	if err := fetch(t, quick(), path, cutting(len(payload), true, "", &asked)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
	if len(asked) != 2 {
		t.Errorf("requests %q", asked)
	}
	write(t, path+".partial", append(bytes.Clone(payload), 0)) // too long
	if err := fetch(t, quick(), path, cutting(len(payload), true, "", &asked)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
}

func TestDownloadFailures(t *testing.T) {
	wrong := bytes.Clone(payload)
	wrong[77]++
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		want     string
		requests int32
	}{
		"wrong bytes": {func(w http.ResponseWriter, r *http.Request) { w.Write(wrong) }, "SHA-256 sum is", 1},
		"not found":   {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "404 Not Found", 1},
		"wrong length": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(payload)-1))
			w.Write(payload[:len(payload)-1])
		}, fmt.Sprintf("serves a file of %d bytes, want %d", len(payload)-1, len(payload)), 1},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for range 3 {
				w.Write(payload)
				w.(http.Flusher).Flush()
			}
		}, fmt.Sprintf("serves more than %d bytes", len(payload)), 1},
		"busy": {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }, "503", 4},
		"wrong range": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				http.Error(w, "no", 500)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(payload)-1, len(payload)))
			w.WriteHeader(http.StatusPartialContent)
		}, "500", 5},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			if name == "wrong range" {
				write(t, path+".partial", payload[:10])
			}
			var requests atomic.Int32
			err := fetch(t, quick(), path, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				test.handler(w, r)
			})
			wantError(t, err, test.want, "/x")
			if requests.Load() > test.requests {
				t.Errorf("%d requests, want at most %d", requests.Load(), test.requests)
			}
			if isFile(path) {
				t.Error("a file has got its name")
			}
		})
	}
}

func TestDownloadStalls(t *testing.T) {
	d := quick()
	d.idle, d.attempts = 50*time.Millisecond, 2
	err := fetch(t, d, filepath.Join(t.TempDir(), "x"), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	wantError(t, err, "no byte for 50ms")
}

func TestDownloadSecondAddress(t *testing.T) {
	bad := httptest.NewServer(http.NotFoundHandler())
	defer bad.Close()
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(payload) }))
	defer good.Close()
	path := filepath.Join(t.TempDir(), "x")
	if err := quick().get(t.Context(), []string{bad.URL, good.URL}, path, remoteOf("x", payload)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path)
}

// TLS is verified, and never left by a redirect.
func TestDownloadTLS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(payload) }))
	defer plain.Close()
	var requests atomic.Int32
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes refused
	secure.StartTLS()
	defer secure.Close()

	d := quick()
	path := filepath.Join(t.TempDir(), "x")
	err := d.get(t.Context(), []string{secure.URL}, path, remoteOf("x", payload))
	wantError(t, err, "certificate")
	if requests.Load() != 0 {
		t.Error("a server without a known certificate was asked")
	}
	d.client.Transport = secure.Client().Transport // trusts this server
	err = d.get(t.Context(), []string{secure.URL}, path, remoteOf("x", payload))
	wantError(t, err, "has no TLS")
	if requests.Load() != 1 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestDownloadCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(payload[:1000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "x")
	err := quick().get(ctx, []string{server.URL, server.URL}, path, remoteOf("x", payload))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// From nothing to an opened data set, by way of a mirror.
func TestOpenDownloads(t *testing.T) {
	s, contents := tinyCIFAR()
	archive := tarGz(t, entries(s, contents)...)
	s.archive = remoteOf("tiny.tar.gz", archive)
	digits, idxContents := tinyMNIST()
	serve := map[string][]byte{"/data/tiny.tar.gz": archive}
	for i := range digits.files {
		packed := gzipped(t, idxContents[i])
		digits.files[i].packed = remoteOf(digits.files[i].packed.name, packed)
		serve["/data/"+digits.files[i].packed.name] = packed
	}
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		content, ok := serve[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()

	for _, test := range []struct {
		source   *source
		requests int32
	}{{s, 1}, {digits, 4}} {
		requests.Store(0)
		dir := t.TempDir()
		o := Options{Dir: dir, Download: true, Mirror: server.URL + "/data/"}
		seen := 0
		o.Progress = func(string, int64, int64) { seen++ }
		o.Log = quiet
		data, err := openNamed(t.Context(), test.source, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(data.Origin.Notes) != 0 || data.Origin.Source != filepath.Join(dir, test.source.name) || seen == 0 {
			t.Errorf("%s: %+v", test.source.name, data.Origin)
		}
		if _, err := openNamed(t.Context(), test.source, o); err != nil || requests.Load() != test.requests {
			t.Errorf("%s again: %v, %d requests, want %d", test.source.name, err, requests.Load(), test.requests)
		}
		// What is lost is fetched again.
		os.Remove(test.source.files[1].find(filepath.Join(dir, test.source.name)))
		if _, err := openNamed(t.Context(), test.source, o); err != nil || requests.Load() != test.requests+1 {
			t.Errorf("%s mended: %v, %d requests", test.source.name, err, requests.Load())
		}
	}

	o := Options{Dir: t.TempDir(), Download: true, Mirror: server.URL + "/elsewhere", Log: quiet}
	_, err := openNamed(t.Context(), s, o)
	wantError(t, err, "tiny: ", "404")
	if h := hint.Of(err); !strings.Contains(h, "put tiny.tar.gz from https://example.invalid into "+filepath.Join(o.Dir, "tiny")) {
		t.Errorf("hint %q", h)
	}
}
