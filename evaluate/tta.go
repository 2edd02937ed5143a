package evaluate

// TTA is test-time augmentation: the network sees several views of each picture
// and the logits are averaged.
type TTA string

// None is the picture alone. Flip adds its mirror image, both with half the
// weight. Six are the views of airbench (Jordan 2024, "94% on CIFAR-10 in 3.29
// Seconds on a Single GPU", https://arxiv.org/abs/2404.00498, section 3): picture
// and mirror image with a quarter of the weight each, and both again moved by one
// pixel down and right, and up and left, with an eighth each. What a move uncovers
// is reflected at the border.
const (
	None TTA = "none"
	Flip TTA = "flip"
	Six  TTA = "six"
)

// TTAs are all of them.
var TTAs = []TTA{None, Flip, Six}

// Views is the number of views of a picture.
func (t TTA) Views() int { return len(t.views()) }

// view is one way to show a picture: pixel (y,x) is the picture's (y+dy, x+dx),
// and then left and right change places.
type view struct {
	dy, dx int // -1, 0, 1
	mirror bool
	weight float32
}

func (v view) plain() bool { return v.dy == 0 && v.dx == 0 && !v.mirror }

func (t TTA) views() []view {
	switch t {
	case None:
		return []view{{weight: 1}}
	case Flip:
		return []view{{weight: 0.5}, {mirror: true, weight: 0.5}}
	case Six:
		return []view{
			{weight: 0.25}, {mirror: true, weight: 0.25},
			{dy: -1, dx: -1, weight: 0.125}, {dy: -1, dx: -1, mirror: true, weight: 0.125},
			{dy: 1, dx: 1, weight: 0.125}, {dy: 1, dx: 1, mirror: true, weight: 0.125},
		}
	}
	return nil
}

// apply shows pictures [N,h,w,c] in src to dst. They overlap nowhere.
func (v view) apply(dst, src []float32, h, w, c int) {
	from := make([]int, w) // column of src for each column of dst
	for x := range from {
		from[x] = reflected(x+v.dx, w)
	}
	if v.mirror {
		for x := range w / 2 {
			from[x], from[w-1-x] = from[w-1-x], from[x]
		}
	}
	for start := 0; start < len(src); start += h * w * c {
		for y := range h {
			in := src[start+reflected(y+v.dy, h)*w*c:][:w*c]
			out := dst[start+y*w*c:][:w*c]
			for x, s := range from {
				for k := range c {
					out[x*c+k] = in[s*c+k]
				}
			}
		}
	}
}

// reflected is i where it lies in 0..n-1, else its mirror image at the border
// pixel, which is not repeated: -1 is 1, n is n-2.
func reflected(i, n int) int {
	switch {
	case n == 1:
		return 0
	case i < 0:
		return -i
	case i >= n:
		return 2*(n-1) - i
	}
	return i
}
