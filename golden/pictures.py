"""Small picture files with the pixels that Pillow decodes.

    python golden/pictures.py                  writes pictures.json

Pillow decodes JPEG with libjpeg-turbo and WebP with libwebp, as TensorFlow,
torchvision and OpenCV do. OpenCV writes the subsamplings that Pillow does not.
Transparency is composited on white, EXIF orientation applied.
"""

import base64
import io

import cv2
import numpy as np
import PIL
from PIL import Image, ImageOps

import formula

HEIGHT, WIDTH = 13, 19  # odd: the last sample of chroma is half outside

y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
waves = [128 + 140 * np.sin(x / 3 + y / 5), 128 + 120 * np.cos(x / 4 - y / 3), 128 + 120 * np.sin(x / 5) * np.cos(y / 4)]
rgb = np.stack(waves, -1).clip(0, 255).astype(np.uint8)
rgba = np.dstack([rgb, (x * 14).astype(np.uint8)])


def pillow(pixels, kind, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def opencv(sampling):
    ok, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]),
                            [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    assert ok
    return data.tobytes()


def animated(first, **options):
    out = io.BytesIO()
    first.save(out, save_all=True, append_images=[ImageOps.mirror(first)], duration=100, **options)
    return out.getvalue()


files = {
    "jpeg 4:4:4": opencv(0x111111),
    "jpeg 4:2:2": opencv(0x211111),
    "jpeg 4:4:0": opencv(0x121111),
    "jpeg 4:2:0": opencv(0x221111),
    "jpeg 4:1:1": opencv(0x411111),
    "jpeg 4:2:0 progressive": pillow(rgb, "JPEG", quality=95, subsampling=2, progressive=True),
    "webp lossy": pillow(rgb, "WEBP", quality=95),
    "webp lossy transparent": pillow(rgba, "WEBP", quality=95),
    "webp lossless transparent": pillow(rgba, "WEBP", lossless=True),
    "webp animated": animated(Image.fromarray(rgb), format="WEBP", quality=95),
    "webp animated transparent": animated(Image.fromarray(rgba), format="WEBP", quality=95),
    "webp animated lossless": animated(Image.fromarray(rgb), format="WEBP", lossless=True),
    "gif animated": animated(Image.fromarray(rgb), format="GIF"),
    "png transparent": pillow(rgba, "PNG"),
}


def decoded(data):
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    white.alpha_composite(picture)
    return np.array(white.convert("RGB"))


def text(data):
    return base64.b64encode(data).decode()


def main():
    pictures = [{"op": name, "values": [HEIGHT, WIDTH], "file": text(data), "picture": text(decoded(data).tobytes())}
                for name, data in files.items()]
    formula.write("pictures", {"pictures": pictures}, (np, PIL, cv2), "files of all kinds and Pillow's pixels; see pictures.py")


if __name__ == "__main__":
    main()
