package dataset

import "strings"

// source describes a built-in data set in files: what they are called, where
// they may lie, how official ones are told, and where to get them.
type source struct {
	name                    string
	classes                 []string
	height, width, channels int
	// folders are the places below a data directory to look in, in order.
	folders []string
	files   []dataFile // in the order of their content
	// archive is the tar.gz that holds all files, nil where they come one by one.
	archive *remote
	// addresses are base URLs, tried in order.
	addresses []string
	parse     func(s *source, contents [][]byte) (train, test *memory, err error)
}

// dataFile is one unpacked file. Where two records of its sum exist, from
// people who had the official archive, either of them will do.
type dataFile struct {
	name    string
	split   string
	records int
	bytes   int64
	md5     string
	sha256  string
	packed  *remote // name.gz, for files that come one by one
}

// remote is a file to download. All that is known about it is checked.
type remote struct {
	name   string
	bytes  int64
	md5    string
	sha256 string
}

// The archives' sums: MD5 from https://www.cs.toronto.edu/~kriz/cifar.html,
// SHA-256 from GoMLX and MLDatasets.jl. The unpacked files' MD5 sums are those
// of rai-project/dldataset (CIFAR-10's also in several CMake builds), their
// SHA-256 sums those of torchvision-ruby.
var cifar10 = &source{
	name:    "cifar10",
	classes: strings.Fields("airplane automobile bird cat deer dog frog horse ship truck"),
	height:  32, width: 32, channels: 3,
	folders: []string{"cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", ""},
	files: []dataFile{
		{name: "data_batch_1.bin", split: train, records: 10000, bytes: 30730000, md5: "5dd7e06a14cb22eb9f671a540d1b7c25", sha256: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"},
		{name: "data_batch_2.bin", split: train, records: 10000, bytes: 30730000, md5: "5ea93a67294ea407fff1d09f752e9692", sha256: "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"},
		{name: "data_batch_3.bin", split: train, records: 10000, bytes: 30730000, md5: "942cd6a4bcdd0dd3c604fbe906cb4421", sha256: "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"},
		{name: "data_batch_4.bin", split: train, records: 10000, bytes: 30730000, md5: "ae636b3ba5c66a11e91e8cb52e771fcb", sha256: "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"},
		{name: "data_batch_5.bin", split: train, records: 10000, bytes: 30730000, md5: "53f37980c15c3d472c316c40844f3f0d", sha256: "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"},
		{name: "test_batch.bin", split: test, records: 10000, bytes: 30730000, md5: "803d5f7f4d78ea53de84dbe85f74fb6d", sha256: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
	},
	archive:   &remote{"cifar-10-binary.tar.gz", 170052171, "c32a1d4ab5d03f1284b67883e8d87530", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
	addresses: []string{"https://www.cs.toronto.edu/~kriz"},
	parse:     parseCIFAR,
}

var cifar100 = &source{
	name: "cifar100",
	classes: strings.Fields(`apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge
		bus butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
		crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
		lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
		orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
		raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
		streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
		turtle wardrobe whale willow_tree wolf woman worm`),
	height: 32, width: 32, channels: 3,
	folders: []string{"cifar100", "cifar100/cifar-100-binary", "cifar-100-binary", ""},
	files: []dataFile{
		{name: "train.bin", split: train, records: 50000, bytes: 153700000, md5: "6172c7755cfe09b2fe270c85cebc1b15", sha256: "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
		{name: "test.bin", split: test, records: 10000, bytes: 30740000, md5: "4499cfba6c016c1be1438163640a0898", sha256: "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
	},
	archive:   &remote{"cifar-100-binary.tar.gz", 168513733, "03b5dce01913d631647c71ecec9e9cb8", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
	addresses: []string{"https://www.cs.toronto.edu/~kriz"},
	parse:     parseCIFAR,
}

// Sums of the packed files: zalandoresearch/fashion-mnist (MD5) and torchvision
// (SHA-256). The repository is used because its S3 site has no TLS.
var fashionMNIST = &source{
	name: "fashion-mnist",
	classes: []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
		"Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"},
	height: 28, width: 28, channels: 1,
	folders: []string{"fashion-mnist", "FashionMNIST/raw", ""},
	files: []dataFile{
		{name: "train-images-idx3-ubyte", split: train, records: 60000, bytes: 47040016, sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
			packed: &remote{"train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"}},
		{name: "train-labels-idx1-ubyte", split: train, records: 60000, bytes: 60008, sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
			packed: &remote{"train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"}},
		{name: "t10k-images-idx3-ubyte", split: test, records: 10000, bytes: 7840016, sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
			packed: &remote{"t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"}},
		{name: "t10k-labels-idx1-ubyte", split: test, records: 10000, bytes: 10008, sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
			packed: &remote{"t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"}},
	},
	addresses: []string{"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"},
	parse:     parseMNIST,
}

// The official address, http://yann.lecun.com/exdb/mnist, has no TLS and no
// longer serves everybody: these are the mirrors of PyTorch and of Google, with
// the official sums.
var mnist = &source{
	name:    "mnist",
	classes: strings.Fields("0 1 2 3 4 5 6 7 8 9"),
	height:  28, width: 28, channels: 1,
	folders: []string{"mnist", "MNIST/raw", ""},
	files: []dataFile{
		{name: "train-images-idx3-ubyte", split: train, records: 60000, bytes: 47040016, sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
			packed: &remote{"train-images-idx3-ubyte.gz", 9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"}},
		{name: "train-labels-idx1-ubyte", split: train, records: 60000, bytes: 60008, sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
			packed: &remote{"train-labels-idx1-ubyte.gz", 28881, "d53e105ee54ea40749a09fcbcd1e9432", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"}},
		{name: "t10k-images-idx3-ubyte", split: test, records: 10000, bytes: 7840016, sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
			packed: &remote{"t10k-images-idx3-ubyte.gz", 1648877, "9fb629c4189551a2d022fa330f9573f3", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"}},
		{name: "t10k-labels-idx1-ubyte", split: test, records: 10000, bytes: 10008, sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
			packed: &remote{"t10k-labels-idx1-ubyte.gz", 4542, "ec29112dd5afa0611ce80d1b7f02629c", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"}},
	},
	addresses: []string{"https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"},
	parse:     parseMNIST,
}

var sources = []*source{cifar10, cifar100, fashionMNIST, mnist}

func sourceNamed(name string) *source {
	for _, s := range sources {
		if s.name == name {
			return s
		}
	}
	return nil
}

// downloads lists what to fetch for s.
func (s *source) downloads() []*remote {
	if s.archive != nil {
		return []*remote{s.archive}
	}
	var all []*remote
	for i := range s.files {
		all = append(all, s.files[i].packed)
	}
	return all
}
