package loader

import (
	"bytes"
	"fmt"
	"image"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/internal/random"
)

// goldenPicture is the picture of golden/augment.py.
func goldenPicture(height, width int) dataset.Image {
	p := dataset.Image{Height: height, Width: width, Channels: 3, Pix: make([]uint8, height*width*3)}
	for i, v := range golden.Halves("augment/picture", len(p.Pix)) {
		p.Pix[i] = uint8(40 + 130*v)
		if i/3%width < width/2 {
			p.Pix[i] += 60
		}
	}
	return p
}

func goldenGrey(height, width int) dataset.Image {
	p := goldenPicture(height, width)
	g := dataset.Image{Height: height, Width: width, Channels: 1}
	for i := range height * width {
		g.Pix = append(g.Pix, grey(&p, i))
	}
	return g
}

// Every operation gives Pillow's bytes.
func TestOperationsAgainstPillow(t *testing.T) {
	tested := map[string]int{}
	for _, want := range golden.Load(t, "augment").Pictures {
		p, scratch := goldenPicture(10, 12), new(dataset.Image)
		name := want.Op
		switch {
		case strings.HasPrefix(name, "grey "):
			p, name = goldenGrey(10, 12), name[len("grey "):]
		case strings.HasPrefix(name, "large "):
			p, name = goldenPicture(20, 26), name[len("large "):]
		}
		if name == "Hue" {
			hue(&p, want.Values[0])
		} else {
			i := slices.IndexFunc(autoOps, func(op autoOp) bool { return op.name == name })
			if i < 0 {
				continue // resizing
			}
			autoOps[i].apply(&p, scratch, want.Values[0])
		}
		tested[name]++
		if got := p.Pix[:len(want.Bytes)]; !bytes.Equal(got, want.Bytes) {
			wrong := 0
			for i := range got {
				if got[i] != want.Bytes[i] {
					if wrong++; wrong <= 3 {
						t.Errorf("%s %v: byte %d is %d, Pillow's %d", want.Op, want.Values, i, got[i], want.Bytes[i])
					}
				}
			}
			t.Errorf("%s %v: %d of %d bytes differ", want.Op, want.Values, wrong, len(got))
		}
	}
	for _, op := range autoOps[1:] {
		if tested[op.name] == 0 {
			t.Errorf("%s is not tested", op.name)
		}
	}
	if tested["Hue"] != 2 {
		t.Errorf("the hue is tested %d times", tested["Hue"])
	}
}

// Resizing gives Pillow's bytes, by every policy.
func TestResizingAgainstPillow(t *testing.T) {
	tested := map[string]int{}
	for _, want := range golden.Load(t, "augment").Pictures {
		v := make([]int, len(want.Values))
		for i, x := range want.Values {
			v[i] = int(x)
		}
		if len(v) < 4 {
			continue
		}
		pre := Preprocess{Height: v[2], Width: v[3], Channels: 3, Resize: want.Op, Scale: 1}
		switch want.Op {
		case "crop-pct":
			pre.Resize, pre.CropPct = Crop, want.Values[4]
		case "resized crop":
			pre.Resize = Squash
		}
		if err := pre.Check(); err != nil {
			t.Fatal(err)
		}
		tested[want.Op]++
		prepare := newPreparer(pre)
		got := make([]float32, v[2]*v[3]*3)
		if want.Op == "resized crop" {
			prepare.draw(goldenPicture(v[0], v[1]), image.Rect(v[5], v[4], v[5]+v[7], v[4]+v[6]), image.Rect(0, 0, v[3], v[2]))
			prepare.numbers(prepare.sized, got)
		} else {
			prepare.apply(goldenPicture(v[0], v[1]), Augment{}, place{}, got)
		}
		wrong := 0
		for i := range got {
			if got[i] != float32(want.Bytes[i]) {
				if wrong++; wrong <= 3 {
					t.Errorf("%s %v: byte %d is %v, Pillow's %d", want.Op, want.Values, i, got[i], want.Bytes[i])
				}
			}
		}
		if wrong > 3 {
			t.Errorf("%s %v: %d of %d bytes differ", want.Op, want.Values, wrong, len(got))
		}
	}
	for _, op := range []string{"squash", "letterbox", "crop-pct", "resized crop"} {
		if tested[op] < 2 {
			t.Errorf("%s is tested %d times", op, tested[op])
		}
	}
}

// The policies draw from torchvision's magnitudes, to the bit.
func TestMagnitudes(t *testing.T) {
	values := golden.Load(t, "augment").Values
	for _, op := range autoOps {
		for policy, r := range map[string]span{"rand": op.rand, "wide": op.wide} {
			want := values[policy+" "+op.name]
			if len(want) == 1 { // no magnitude
				if r != (span{}) {
					t.Errorf("%s %s has magnitudes", policy, op.name)
				}
				continue
			}
			if len(want) != magnitudeBins {
				t.Fatalf("%s %s: %d magnitudes", policy, op.name, len(want))
			}
			for bin := range magnitudeBins {
				if got := r.magnitude(bin, 32); got != want[bin] {
					t.Errorf("%s %s: magnitude %d is %v, torchvision's %v", policy, op.name, bin, got, want[bin])
				}
			}
		}
	}
}

func TestMixingAgainstTorchvision(t *testing.T) {
	values := golden.Load(t, "augment").Values
	for _, share := range []float64{0.3, 0.9} {
		want := values[fmt.Sprintf("mixup %v", share)]
		if len(want) != 8+16 {
			t.Fatalf("%d numbers of mixup", len(want))
		}
		images := make([]float32, 8)
		for i, v := range golden.Halves("augment/mix", 8) {
			images[i] = float32(v)
		}
		m := mixing{share: share}
		m.apply(images, make([]float32, 2), 4, 2, 1)
		for i, v := range images {
			if math.Abs(float64(v)-want[i]) > 1e-7 { // of numbers below 1, in float32
				t.Errorf("mixup %v: element %d is %v, want %v", share, i, v, want[i])
			}
		}
		labels, partners := []int32{0, 1, 2, 3}, make([]int32, 4)
		weights, second := make([]float32, 4), make([]float32, 4)
		m.labels(labels, partners, weights, second, nil)
		for i := range 4 {
			target := make([]float32, 4)
			target[labels[i]] += weights[i]
			target[partners[i]] += second[i]
			for k, v := range target {
				if math.Abs(float64(v)-want[8+4*i+k]) > 1e-7 {
					t.Errorf("mixup %v: target %d of picture %d is %v, want %v", share, k, i, v, want[8+4*i+k])
				}
			}
		}
		m.labels(labels, partners, weights, second, []float32{1, 2, 3, 4}) // weights by class
		if weights[2] != 3*float32(share) || second[2] != 2*float32(1-share) || second[0] != 4*float32(1-share) {
			t.Errorf("weighted by class: %v and %v", weights, second)
		}
	}
	boxes := values["cutmix"]
	if len(boxes) < 40 || len(boxes)%10 != 0 {
		t.Fatalf("%d numbers of CutMix", len(boxes))
	}
	for ; len(boxes) > 0; boxes = boxes[10:] {
		b := boxes[:10]
		n := func(i int) int { return int(b[i]) }
		got := cutMix(b[0], n(1), n(2), n(3), n(4))
		if want := image.Rect(n(5), n(6), n(7), n(8)); got.box.Dx() != want.Dx() || got.box.Dy() != want.Dy() || !got.box.Empty() && got.box != want || math.Abs(got.share-b[9]) > 1e-12 {
			t.Errorf("CutMix %v: box %v and share %v, want %v and %v", b[:5], got.box, got.share, want, b[9])
		}
	}

	// The rectangle shows the picture before, the rest stays; the first picture's is the last.
	images := make([]float32, 3*4*4)
	for i := range images {
		images[i] = float32(i / 16)
	}
	mixing{share: 0.5, box: image.Rect(1, 0, 3, 4)}.apply(images, make([]float32, 16), 3, 4, 1)
	for i, v := range images {
		want := float32(i / 16)
		if x := i % 4; x == 1 || x == 2 {
			want = float32((i/16 + 2) % 3)
		}
		if v != want {
			t.Fatalf("CutMix: element %d is %v, want %v", i, v, want)
		}
	}
}

// gradient is a data set of pictures of unlike sizes.
type gradient int

func (g gradient) Len() int          { return int(g) }
func (g gradient) Label(i int) int   { return i % 5 }
func (g gradient) Name(i int) string { return fmt.Sprintf("gradient[%d]", i) }
func (g gradient) Image(i int, dst *dataset.Image) error {
	*dst = goldenPicture(12+i%7, 12+i%5)
	return nil
}

// A picture that the weights draw again in an epoch is augmented in another way, and
// going on within the epoch changes nothing of that.
func TestDrawnAgain(t *testing.T) {
	l := mustNew(t, gradient(6), Options{BatchSize: 4, Shuffle: true, Seed: 1, Augment: Augment{ResizedCrop: 0.3}, SampleWeights: []float32{1, 0, 0, 1, 0},
		Preprocess: Preprocess{Height: 12, Width: 10, Channels: 3, Resize: Crop, Scale: 1.0 / 255}})
	for epoch := range 4 {
		seen := map[int][][]float32{}
		for b, err := range l.Batches(t.Context(), epoch, 0) {
			if err != nil {
				t.Fatal(err)
			}
			for i, at := range b.Indices {
				if want := at + 6*len(seen[at]); b.Draws[i] != want {
					t.Errorf("epoch %d: draw %d of picture %d is %d, want %d", epoch, len(seen[at])+1, at, b.Draws[i], want)
				}
				seen[at] = append(seen[at], slices.Clone(b.Images.Float32s()[360*i:360*(i+1)]))
			}
		}
		again := 0
		for at, views := range seen {
			for i, v := range views {
				for _, other := range views[:i] {
					again++
					if slices.Equal(v, other) {
						t.Errorf("epoch %d: picture %d is the same when it is drawn again", epoch, at)
					}
				}
			}
		}
		if again == 0 {
			t.Errorf("epoch %d: six draws of three pictures repeat none", epoch)
		}
		for b, err := range l.Batches(t.Context(), epoch, 1) {
			if err != nil {
				t.Fatal(err)
			}
			for i, at := range b.Indices {
				if views := seen[at]; !slices.ContainsFunc(views, func(v []float32) bool { return slices.Equal(v, b.Images.Float32s()[360*i:360*(i+1)]) }) {
					t.Errorf("epoch %d: picture %d of the second batch differs when the epoch begins there", epoch, at)
				}
			}
		}
	}
}

// Each augmentation is a function of seed, epoch and position: the number of workers
// and where an epoch begins change nothing, and At shows what Batches gives. Each
// does something, another epoch gives other pictures, and each leaves the others
// alone.
func TestAugmentationsArePure(t *testing.T) {
	all := map[string]Augment{
		"resized crop":     {ResizedCrop: 0.3},
		"pad-crop":         {PadCrop: 2},
		"translate":        {Translate: 2},
		"flip":             {Flip: true},
		"alternating flip": {AlternatingFlip: true},
		"rand":             {Auto: RandAugment, RandOps: 2, RandMagnitude: 9},
		"trivial":          {Auto: TrivialAugment},
		"jitter":           {Jitter: Jitter{0.4, 0.4, 0.4, 0.1}},
		"cutout":           {Cutout: 4},
		"erase":            {Erase: 0.5},
		"mixup":            {Mixup: 0.8},
		"cutmix":           {CutMix: 1},
		"mixup or cutmix":  {Mixup: 0.2, CutMix: 1},
		"all": {ResizedCrop: 0.3, Translate: 2, AlternatingFlip: true, Auto: TrivialAugment, Jitter: Jitter{0.4, 0.4, 0.4, 0.1},
			Cutout: 4, Erase: 0.5, Mixup: 0.2, CutMix: 1},
	}
	open := func(a Augment, seed uint64, workers int) *Loader {
		return mustNew(t, gradient(21), Options{BatchSize: 6, Shuffle: true, Seed: seed, Augment: a, Workers: workers, ClassWeights: []float32{1, 2, 3, 4, 5},
			Preprocess: Preprocess{Height: 12, Width: 10, Channels: 3, Resize: Crop, Scale: 1.0 / 255, Mean: []float64{0.4, 0.4, 0.4}, Std: []float64{0.2, 0.2, 0.2}}})
	}
	// batches are the numbers, labels and shares of an epoch from batch first on.
	batches := func(a Augment, seed uint64, workers, epoch, first int) []float32 {
		l := open(a, seed, workers)
		var numbers []float32
		for b, err := range l.Batches(t.Context(), epoch, first) {
			if err != nil {
				t.Fatal(err)
			}
			these := slices.Concat(b.Images.Float32s(), b.Weights.Float32s())
			if a.Mixes() {
				for i, p := range b.Partners.Int32s() {
					these = append(these, float32(p), b.PartnerWeights.Float32s()[i], float32(b.Share))
				}
			}
			alone, err := l.At(t.Context(), epoch, b.Indices)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(alone.Images.Float32s(), b.Images.Float32s()) || alone.Share != b.Share {
				t.Error("At gives other pictures")
			}
			numbers = append(numbers, these...)
		}
		return numbers
	}
	plain := batches(Augment{}, 1, 1, 0, 0)
	for name, a := range all {
		if err := a.Check(12, 10); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		whole := batches(a, 1, 1, 0, 0)
		if !slices.Equal(batches(a, 1, 4, 0, 0), whole) {
			t.Errorf("%s: the number of workers matters", name)
		}
		tail := batches(a, 1, 2, 0, 2)
		if !slices.Equal(tail, whole[len(whole)-len(tail):]) || len(tail) >= len(whole) {
			t.Errorf("%s: seeking gives other pictures", name)
		}
		if len(whole) == len(plain) && slices.Equal(whole, plain) {
			t.Errorf("%s changes nothing", name)
		}
		// The same pictures in another epoch, and with another seed.
		var seen [][]float32
		for _, of := range []struct {
			seed  uint64
			epoch int
		}{{1, 0}, {1, 1}, {2, 0}} {
			b, err := open(a, of.seed, 1).At(t.Context(), of.epoch, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, slices.Clone(b.Images.Float32s()))
		}
		if slices.Equal(seen[0], seen[1]) {
			t.Errorf("%s: the second epoch repeats the first", name)
		}
		if slices.Equal(seen[0], seen[2]) {
			t.Errorf("%s: the seed does not matter", name)
		}
		// Same windows, shifts and mirrors when a hole is punched besides.
		if a.Cutout == 0 && a.Erase == 0 && !a.Mixes() {
			holed := a
			holed.Cutout = 3
			differ := 0
			for i, v := range batches(holed, 1, 1, 0, 0) {
				if v != whole[i] {
					if v != 0 {
						t.Errorf("%s: cutout changes element %d to %v", name, i, v)
						break
					}
					differ++
				}
			}
			if differ == 0 {
				t.Errorf("%s: cutout changes nothing", name)
			}
		}
	}
}

// Alternating flip: about half of the pictures in the first epoch, the others in
// the second, and so on.
func TestAlternatingFlip(t *testing.T) {
	src := dataset.Image{Height: 1, Width: 2, Channels: 1, Pix: []uint8{1, 2}}
	a := Augment{AlternatingFlip: true}
	first := 0
	for i := range 1000 {
		var flips [4]bool
		for epoch := range flips {
			flips[epoch] = a.apply(place{7, epoch, i}, &src, new(dataset.Image), nil).Pix[0] == 2
		}
		if flips[0] == flips[1] || flips[0] != flips[2] || flips[1] != flips[3] {
			t.Fatalf("picture %d is mirrored in epochs %v", i, flips)
		}
		if flips[0] {
			first++
		}
	}
	if first < 420 || first > 580 { // five deviations of 1,000 throws
		t.Errorf("%d of 1000 pictures are mirrored in the first epoch", first)
	}
}

// A translation fills with the reflection: PyTorch's pad with mode reflect.
// Pixel by pixel, what move does by rows: pixel (y,x) of the shifted picture is
// (y+dy,x+dx) of the picture with its border, and mirroring comes after.
func TestMove(t *testing.T) {
	moved := 0
	for _, a := range []Augment{{Flip: true}, {PadCrop: 2}, {PadCrop: 4, Flip: true}, {Translate: 3}, {Translate: 2, Flip: true}, {Translate: 3, AlternatingFlip: true}} {
		for _, size := range [][3]int{{4, 4, 3}, {5, 7, 1}, {7, 5, 3}} {
			h, w, c := size[0], size[1], size[2]
			src := dataset.Image{Height: h, Width: w, Channels: c, Pix: make([]uint8, h*w*c)}
			for i := range src.Pix {
				src.Pix[i] = uint8(i + 1)
			}
			var dst dataset.Image
			for position := range 200 {
				at := place{7, position % 3, position}
				s := at.stream("augment")
				most := max(a.PadCrop, a.Translate)
				dy, dx := s.IntN(2*most+1)-most, s.IntN(2*most+1)-most
				flip := s.Bool(0.5) && a.Flip
				if a.AlternatingFlip {
					first := random.Make(7, random.Name("first flip"), uint64(position))
					flip = first.Bool(0.5) != (at.epoch == 1)
				}
				got := a.move(at, &src, &dst)
				for i := range got.Pix {
					y, x := i/c/w, i/c%w
					if flip {
						x = w - 1 - x
					}
					y, x = y+dy, x+dx
					if a.Translate > 0 {
						y, x = (h-1)-abs((h-1)-abs(y)), (w-1)-abs((w-1)-abs(x))
					}
					want := uint8(0)
					if y >= 0 && y < h && x >= 0 && x < w {
						want = src.Pix[(y*w+x)*c+i%c]
					}
					if got.Pix[i] != want {
						t.Fatalf("%+v, %v, shift %d, %d, mirrored %v: byte %d is %d, want %d", a, size, dy, dx, flip, i, got.Pix[i], want)
					}
				}
				if got != &src {
					moved++
				}
				for i := range dst.Pix { // what is left of the picture before
					dst.Pix[i] = 255
				}
			}
		}
	}
	if moved < 1000 {
		t.Errorf("%d pictures moved", moved)
	}
}

func abs(x int) int { return max(x, -x) }

func TestTranslateReflects(t *testing.T) {
	wide := dataset.Image{Height: 3, Width: 3, Channels: 1, Pix: []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9}}
	seen := map[string]bool{}
	for i := range 2000 {
		seen[fmt.Sprint(Augment{Translate: 2}.apply(place{1, 0, i}, &wide, new(dataset.Image), nil).Pix)] = false
	}
	// F.pad(x, (2, 2, 2, 2), mode="reflect") of rows 1 2 3, 4 5 6, 7 8 9 is 9 8 7 8 9 8 7 and so on.
	padded := [7][7]uint8{
		{9, 8, 7, 8, 9, 8, 7}, {6, 5, 4, 5, 6, 5, 4}, {3, 2, 1, 2, 3, 2, 1}, {6, 5, 4, 5, 6, 5, 4}, {9, 8, 7, 8, 9, 8, 7}, {6, 5, 4, 5, 6, 5, 4}, {3, 2, 1, 2, 3, 2, 1},
	}
	for y := range 5 {
		for x := range 5 {
			var want []uint8
			for r := range 3 {
				want = append(want, padded[y+r][x:x+3]...)
			}
			if _, ok := seen[fmt.Sprint(want)]; !ok {
				t.Errorf("the window at %d,%d does not occur: %v", y, x, want)
			}
			seen[fmt.Sprint(want)] = true
		}
	}
	for picture, wanted := range seen {
		if !wanted {
			t.Errorf("another picture occurs: %v", picture)
		}
	}
}

// Windows and rectangles stay inside, with the shares of the area they promise.
func TestRandomRectangles(t *testing.T) {
	a := Augment{ResizedCrop: 0.25}
	least, most := 1.0, 0.0
	for i := range 5000 {
		r := a.window(place{1, 0, i}, 60, 80)
		if !r.In(image.Rect(0, 0, 80, 60)) {
			t.Fatalf("window %v", r)
		}
		share := float64(r.Dx()*r.Dy()) / 4800
		least, most = min(least, share), max(most, share)
		if aspect := float64(r.Dx()) / float64(r.Dy()); aspect < 0.7 || aspect > 1.4 {
			t.Errorf("window %v has the aspect %v", r, aspect)
		}
	}
	if least < 0.23 || least > 0.28 || most < 0.9 {
		t.Errorf("windows have %.2f to %.2f of the area, want 0.25 to nearly 1", least, most)
	}
	if r := a.window(place{1, 0, 0}, 10, 1000); r != image.Rect(493, 0, 506, 10) { // ten attempts fail; 13 is 10·4/3
		t.Errorf("window of a stripe %v", r)
	}

	sum, n := 0.0, 0
	for i := range 5000 {
		s := place{1, 0, i}.stream("erase")
		r := erased(&s, 32, 32)
		if !r.In(image.Rect(0, 0, 32, 32)) {
			t.Fatalf("rectangle %v", r)
		}
		sum += float64(r.Dx()*r.Dy()) / 1024
		n++
	}
	if mean := sum / float64(n); mean < 0.15 || mean > 0.19 { // of 0.02 to 0.33, some of which do not fit
		t.Errorf("rectangles have %.3f of the area on average", mean)
	}

	// Holes are 0, the rest stays; both are inside.
	dst := slices.Repeat([]float32{1}, 8*8*2)
	Augment{Cutout: 3}.punch(place{1, 0, 4}, dst, 8, 8, 2)
	holes := 0
	for _, v := range dst {
		if v == 0 {
			holes++
		}
	}
	if holes != 3*3*2 {
		t.Errorf("a cutout of 3×3 pixels in two channels has %d zeros", holes)
	}
	erasures := 0
	for i := range 1000 {
		dst := slices.Repeat([]float32{1}, 64)
		Augment{Erase: 0.3}.punch(place{1, 0, i}, dst, 8, 8, 1)
		if slices.Contains(dst, 0) {
			erasures++
		}
	}
	if erasures < 220 || erasures > 380 { // five deviations around 300
		t.Errorf("%d of 1000 pictures are erased with probability 0.3", erasures)
	}
}

func TestAugmentRefuses(t *testing.T) {
	for want, a := range map[string]Augment{
		"resized-crop from 2":          {ResizedCrop: 2},
		"resized-crop from NaN":        {ResizedCrop: math.NaN()},
		"translation of 8":             {Translate: 8},
		"pad-crop of 2 and":            {Translate: 2, PadCrop: 2},
		"flip and alternating":         {Flip: true, AlternatingFlip: true},
		`auto is "auto"`:               {Auto: "auto"},
		"0 operations":                 {Auto: RandAugment},
		"2 operations of magnitude 31": {Auto: RandAugment, RandOps: 2, RandMagnitude: 31},
		"jitter {":                     {Jitter: Jitter{Contrast: -1}},
		"hue by 0.6":                   {Jitter: Jitter{Hue: 0.6}},
		"cutout of 9":                  {Cutout: 9},
		"probability 1.5":              {Erase: 1.5},
		"mixup -1":                     {Mixup: -1},
		"cutmix NaN":                   {CutMix: math.NaN()},
	} {
		if err := a.Check(8, 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// What the network sees of a picture of 300×200 pixels, in its own pixels.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		resize string
		pct    float64
		want   image.Rectangle
	}{
		{Squash, 0, image.Rect(0, 0, 300, 200)},
		{Crop, 0, image.Rect(50, 0, 250, 200)},
		{Crop, 0.5, image.Rect(100, 50, 200, 150)},
		{Letterbox, 0, image.Rect(0, -50, 300, 250)},
	} {
		p := Preprocess{Height: 50, Width: 50, Channels: 3, Resize: c.resize, CropPct: c.pct, Scale: 1}
		if got := p.Window(200, 300); got != c.want {
			t.Errorf("%s %v: window %v, want %v", c.resize, c.pct, got, c.want)
		}
	}
}
