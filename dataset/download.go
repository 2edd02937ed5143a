package dataset

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// download fetches what is missing of s into the folder home.
func (s *source) download(ctx context.Context, home string, o Options) error {
	addresses := s.addresses
	if o.Mirror != "" {
		addresses = []string{o.Mirror}
	}
	if err := os.MkdirAll(home, 0o777); err != nil {
		return err
	}
	d := newDownloader(o.Progress)
	for i, r := range s.downloads() {
		if s.archive == nil && s.files[i].find(home) != "" {
			continue
		}
		path := filepath.Join(home, r.name)
		if !isFile(path) {
			var urls []string
			for _, a := range addresses {
				urls = append(urls, strings.TrimSuffix(a, "/")+"/"+r.name)
			}
			o.Log.Info("downloading", "from", urls[0], "to", path)
			if err := d.get(ctx, urls, path, r); err != nil {
				return err
			}
		}
		if s.archive == nil {
			continue
		}
		// The unpacked files open in a fraction of the time.
		if err := s.unpack(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// downloader fetches files over HTTP and resumes where a connection broke.
type downloader struct {
	client   *http.Client
	progress func(name string, done, total int64)
	attempts int           // in a row without a new byte
	wait     time.Duration // before the second attempt, doubled for each further one
	idle     time.Duration // without a byte, after which a connection is given up
}

func newDownloader(progress func(name string, done, total int64)) *downloader {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.ResponseHeaderTimeout = 30 * time.Second
	// The sums are those of the files as they are: no transparent gzip.
	transport.DisableCompression = true
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	return &downloader{
		client: &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return permanent{fmt.Errorf("it redirects to %s, which has no TLS", r.URL)}
			}
			if len(via) >= 10 {
				return permanent{errors.New("it redirects ten times")}
			}
			return nil
		}},
		progress: progress,
		attempts: 4,
		wait:     500 * time.Millisecond,
		idle:     60 * time.Second,
	}
}

// permanent marks an error that another attempt at the same address will not cure.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// get brings the file want from the first of urls that serves it to path, by
// way of path.partial. Its length and both sums are checked before it gets its
// name, so two processes that fetch the same file at once may both fail but
// cannot leave a mixture.
func (d *downloader) get(ctx context.Context, urls []string, path string, want *remote) error {
	var errs []error
	for _, u := range urls {
		err := d.getFrom(ctx, u, path, want)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (d *downloader) getFrom(ctx context.Context, address, path string, want *remote) error {
	if _, err := url.Parse(address); err != nil {
		return err
	}
	partial := path + ".partial"
	failures, restarted := 0, false
	farthest := fileSize(partial)
	for {
		fresh := fileSize(partial) == 0
		err := d.attempt(ctx, address, partial, want)
		if err == nil {
			err = finish(partial, path, want)
			var wrong *sumError
			if err == nil || !errors.As(err, &wrong) {
				return err
			}
			// Nothing of it can be trusted. When some of it came from an earlier
			// attempt or another address, this one deserves a clean start.
			if removeErr := removePartial(partial); removeErr != nil {
				return removeErr
			}
			if fresh || restarted {
				return fmt.Errorf("%s: %w", address, err)
			}
			restarted = true
			continue
		}
		err = fmt.Errorf("%s: %w", address, err)
		var p permanent
		var certificate *tls.CertificateVerificationError
		if ctx.Err() != nil || errors.As(err, &p) || errors.As(err, &certificate) {
			return err
		}
		// A server without ranges starts over each time, which is no progress.
		if n := fileSize(partial); n > farthest {
			farthest = n
			failures = 0
		}
		failures++
		if failures >= d.attempts {
			kept := ""
			if n := fileSize(partial); n > 0 {
				kept = fmt.Sprintf("; the next download goes on from the %d of %d bytes in %s", n, want.bytes, partial)
			}
			return fmt.Errorf("%w (given up after %d attempts%s)", err, failures, kept)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d.wait << (failures - 1)):
		}
	}
}

// attempt makes one request, for what partial lacks, and appends what comes. It
// returns nil when partial is complete.
func (d *downloader) attempt(ctx context.Context, address, partial string, want *remote) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return permanent{err}
	}
	have := fileSize(partial)
	if have == want.bytes {
		return nil
	}
	if have > want.bytes {
		if err := removePartial(partial); err != nil {
			return permanent{err}
		}
		have = 0
	}
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		// Only a server that still has the same file may continue it.
		if tag, err := os.ReadFile(partial + ".etag"); err == nil && len(tag) > 0 {
			request.Header.Set("If-Range", string(tag))
		}
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()

	flags := os.O_WRONLY | os.O_CREATE
	switch response.StatusCode {
	case http.StatusOK: // all of it, whatever was asked for
		have = 0
		flags |= os.O_TRUNC
	case http.StatusPartialContent:
		if start := rangeStart(response.Header.Get("Content-Range")); start != have {
			removePartial(partial)
			return fmt.Errorf("it continues at byte %d, want %d", start, have)
		}
		flags |= os.O_APPEND
	case http.StatusRequestedRangeNotSatisfiable:
		removePartial(partial)
		return fmt.Errorf("it has nothing from byte %d on", have)
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return fmt.Errorf("it answers %s", response.Status)
	default:
		err := fmt.Errorf("it answers %s", response.Status)
		if response.StatusCode >= 500 {
			return err
		}
		return permanent{err}
	}
	if n := response.ContentLength; n >= 0 && have+n != want.bytes {
		return permanent{fmt.Errorf("it serves a file of %d bytes, want %d", have+n, want.bytes)}
	}

	if have == 0 {
		// Kept beside the partial file for a later process. A weak tag names no bytes.
		tag := response.Header.Get("ETag")
		if strings.HasPrefix(tag, "W/") {
			tag = ""
		}
		if err := os.WriteFile(partial+".etag", []byte(tag), 0o666); err != nil {
			return permanent{err}
		}
	}
	file, err := os.OpenFile(partial, flags, 0o666)
	if err != nil {
		return permanent{err}
	}
	watchdog := time.AfterFunc(d.idle, func() { cancel(fmt.Errorf("no byte for %v", d.idle)) })
	defer watchdog.Stop()
	body := &progressReader{from: io.LimitReader(response.Body, want.bytes-have+1), tell: func(n int) {
		watchdog.Reset(d.idle)
		have += int64(n)
		d.progress(want.name, have, want.bytes)
	}}
	_, err = io.Copy(file, body)
	if closeErr := file.Close(); err == nil && closeErr != nil {
		return permanent{closeErr}
	}
	if err != nil {
		var disk *os.PathError
		if errors.As(err, &disk) {
			return permanent{err}
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("the connection broke at byte %d of %d: %w", have, want.bytes, err)
	}
	switch {
	case have > want.bytes:
		removePartial(partial)
		return permanent{fmt.Errorf("it serves more than %d bytes", want.bytes)}
	case have < want.bytes:
		return fmt.Errorf("the connection ended at byte %d of %d", have, want.bytes)
	}
	return nil
}

type progressReader struct {
	from io.Reader
	tell func(n int)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	if n > 0 {
		p.tell(n)
	}
	return n, err
}

// rangeStart returns the first byte of a Content-Range, -1 where it names none.
func rangeStart(contentRange string) int64 {
	spec, ok := strings.CutPrefix(contentRange, "bytes ")
	first, _, cut := strings.Cut(spec, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	if !ok || !cut || err != nil {
		return -1
	}
	return start
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func removePartial(partial string) error {
	os.Remove(partial + ".etag")
	if err := os.Remove(partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sumError says that a file is not the one wanted.
type sumError struct{ what, got, want string }

func (e *sumError) Error() string {
	return fmt.Sprintf("%s sum is %s, want %s: the server has another file, or it was damaged on its way", e.what, e.got, e.want)
}

// finish checks the sums of partial and renames it to path.
func finish(partial, path string, want *remote) error {
	file, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	old, sum := md5.New(), sha256.New()
	if _, err := io.Copy(io.MultiWriter(old, sum), file); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.sha256 {
		return &sumError{"SHA-256", got, want.sha256}
	}
	if got := hex.EncodeToString(old.Sum(nil)); got != want.md5 {
		return &sumError{"MD5", got, want.md5}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil { // Windows renames closed files only
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	os.Remove(partial + ".etag")
	return nil
}
