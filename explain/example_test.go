package explain_test

import (
	"context"
	"fmt"
	"image/png"
	"log"
	"os"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/explain"
)

func Example() {
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()
	classifier, err := classify.Open("runs/2026-11-23-resnet18-shapes", eng)
	if err != nil {
		log.Fatal(err)
	}
	defer classifier.Close()
	x := explain.New(classifier)
	defer x.Close()
	var picture dataset.Image // dataset.LoadImage reads one from a file
	found, err := x.Explain(context.Background(), []dataset.Image{picture}, explain.Options{Method: explain.LayerCAM})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(found[0].Predictions[0].Class, found[0].Confidence())
	f, err := os.Create("overlay.png")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, explain.Overlay(picture, found[0].Map)); err != nil {
		log.Fatal(err)
	}
}
