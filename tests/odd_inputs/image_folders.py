"""Real images in folders."""

import io
import os
import struct
import zlib

from odd_inputs.doing import both, image, link, named, noise, real
from odd_inputs.row import accepted, refused
from PIL import Image, PngImagePlugin


def bomb():
    """Return a PNG file whose header says 50,000 x 50,000 px."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def frames(form):
    buffer = io.BytesIO()
    first, *others = [Image.new("RGB", (8, 8), (value,) * 3) for value in (40, 90, 140)]
    first.save(buffer, form, save_all=True, append_images=others, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def with_text(size):
    """Return a PNG file with so many bytes of text in it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * size, zip=True)
    return image(40, pnginfo=info)


def with_exif(size):
    exif = Image.Exif()
    exif[0x9286] = b"x" * size
    return image(40, form="JPEG", exif=exif)


def profile():
    return image(40, icc_profile=b"no profile at all")


def labels(*wanted):
    return lambda found: sorted(found.labels) == list(wanted)


def first_is(low, high=None):
    """Return whether the first image has this value of gray, within one."""
    return lambda found: abs(float(found.pixels.images[0].mean()) - low) <= (1.5 if high is None else high)


def cats(name, data):
    """Two images, the first of which is odd."""
    return {f"cat/{name}": data, "dog/1.png": image(200)}


def pipe(path):
    os.mkfifo(path)


ROWS = [
    accepted("one image a class", real(both()), labels(0, 1)),
    refused("an image of no byte", real(cats("1.png", b"")), "cat/1.png", "no image"),
    refused("an image cut off", real(cats("1.png", noise((64, 64))[:900])), "cat/1.png", "cannot be decoded"),
    refused(
        "a JPEG file cut off", real(cats("1.jpg", noise((64, 64), "JPEG")[:900])), "cat/1.jpg", "cannot be decoded"
    ),
    refused("a page of an error for an image", real(cats("1.jpg", "<html>404</html>")), "cat/1.jpg", "no format"),
    refused(
        "a pointer of Git LFS",
        real(cats("1.png", "version https://git-lfs.github.com/spec/v1\n")),
        "cat/1.png",
        "no format",
    ),
    refused("far more pixels than any image has", real(cats("1.png", bomb())), "cat/1.png", "cannot be decoded"),
    accepted("one pixel", real(cats("1.png", image(40, (1, 1)))), first_is(40)),
    accepted("a line of pixels", real(cats("1.png", image(40, (4000, 1)))), first_is(40)),
    accepted("a column of pixels", real(cats("1.png", image(40, (1, 4000)))), first_is(40)),
    accepted("a GIF file of several frames", real(cats("1.gif", frames("GIF"))), first_is(40)),
    accepted("a PNG file of several frames", real(cats("1.png", frames("PNG"))), first_is(40)),
    accepted("a WebP file of several frames", real(cats("1.webp", frames("WEBP"))), first_is(40)),
    accepted("a TIFF file of several pages", real(cats("1.tif", frames("TIFF"))), first_is(40)),
    accepted("colors for print", real(cats("1.jpg", image((0, 0, 0, 215), mode="CMYK", form="JPEG"))), first_is(40, 3)),
    accepted("a palette", real(cats("1.png", image(0, mode="P"))), labels(0, 1)),
    accepted("black and white", real(cats("1.png", image(1, mode="1"))), first_is(255)),
    accepted("gray with transparency", real(cats("1.png", image((40, 255), mode="LA"))), first_is(40)),
    accepted("nothing but transparency", real(cats("1.png", image((40, 40, 40, 0), mode="RGBA"))), first_is(255)),
    accepted("16 bits", real(cats("1.png", image(40 * 257, mode="I;16"))), first_is(40)),
    refused("floats", real(cats("1.tif", image(0.5, mode="F", form="TIFF"))), "cat/1.tif", "32 bits"),
    accepted("an EXIF block of 60 kB", real(cats("1.jpg", with_exif(60_000))), first_is(40, 3)),
    accepted("a text that unpacks to 2 MB", real(cats("1.png", with_text(2_000_000))), first_is(40)),
    accepted("a color profile that is none", real(cats("1.png", profile())), first_is(40)),
    accepted("a JPEG file under a name of PNG", real(cats("1.png", image(40, form="JPEG"))), first_is(40, 3)),
    accepted("a suffix in capitals", real(cats("1.JPEG", image(40, form="JPEG"))), first_is(40, 3)),
    refused("names without a suffix", real({"cat/1": image(), "dog/1": image()}), "set", "no images", ".png"),
    refused(
        "photos of a phone alone",
        real({"cat/1.heic": b"\0\0\0\x18ftypheic", "dog/1.heic": b"\0"}),
        "set",
        "no images",
        ".png",
    ),
    refused(
        "drawings of lines alone", real({"cat/1.svg": "<svg/>", "dog/1.svg": "<svg/>"}), "set", "no images", ".png"
    ),
    refused("images without folders of classes", real({"1.png": image(), "2.png": image()}), "set", "folder per class"),
    refused("a folder that is empty", real({}), "set", "folder per class"),
    refused(
        "folders of classes that are empty",
        real({"cat/x": lambda path: None, "dog/x": lambda path: None}),
        "set",
        "no image",
    ),
    refused("a class without an image", real({"cat/1.png": image(), "dog/x.txt": ""}), "no image of 1", "dog"),
    refused(
        "classes that the table does not have",
        real({"cow/1.png": image(), "hen/1.png": image()}),
        "'cow'",
        "class table",
    ),
    accepted("capitals and signs in folder names", real({"Cat/1.png": image(), "DOG_/1.png": image()}), labels(0, 1)),
    refused(
        "two folders of one class", real({"cat/1.png": image(), "Cat/1.png": image(), "dog/1.png": image()}), "cat"
    ),
    accepted(
        "a folder in another form of Unicode",
        real({"cafe\u0301/1.png": image(), "dog/1.png": image()}, table=("caf\u00e9", "dog")),
        labels(0, 1),
    ),
    accepted("a link to an image", real(both() | {"cat/2.png": link("1.png")}), labels(0, 0, 1)),
    refused("a link to nothing", real(both() | {"cat/2.png": link("nothing")}), "cat/2.png", "No such file"),
    refused("a link to itself", real(both() | {"cat/2.png": link("2.png")}), "cat/2.png", "symbolic links"),
    accepted("a link to the folder above", real(both() | {"cat/up": link("..")}), lambda found: found.labels == [0, 1]),
    refused("a pipe under the name of an image", real(both() | {"cat/2.png": pipe}), "cat/2.png", "no file"),
    accepted("a folder under the name of an image", real(both() | {"cat/2.png/x.png": image()}), labels(0, 0, 1)),
    accepted("blanks, signs and quotes in names", real(both() | {"cat/a b'c\"#%?&.png": image()}), labels(0, 0, 1)),
    accepted("a line break in a name", real(both() | {"cat/a\nb.png": image()}), labels(0, 0, 1)),
    refused("a broken image with a line break in its name", real(both() | {"cat/a\nb.png": b"x"}), "cannot be decoded"),
    accepted("bytes of another age in a name", real(both() | {b"cat/\xe9.png": image()}), labels(0, 0, 1)),
    refused("a broken image with such a name", real(both() | {b"cat/\xe9.png": b"x"}), "cannot be decoded"),
    refused(
        "bytes of another age in the name of a class",
        real({b"caf\xe9/1.png": image(), "dog/1.png": image()}, table=("café", "dog")),
        "caf",
    ),
    accepted(
        "what systems leave behind",
        real(both() | {"cat/._1.png": b"x", "cat/Thumbs.db": b"x", ".x/1.png": b"x"}),
        labels(0, 1),
    ),
    accepted(
        "a split for tests",
        real(
            {
                "train/cat/1.png": image(),
                "train/dog/1.png": image(),
                "test/cat/1.png": image(40),
                "test/dog/1.png": image(200),
            }
        ),
        labels(0, 1),
    ),
    refused(
        "other classes in the tests",
        real(
            {
                "train/cat/1.png": image(),
                "train/dog/1.png": image(),
                "test/cat/1.png": image(),
                "test/cow/1.png": image(),
            }
        ),
        "'cow'",
    ),
    refused("one image more than there are", real(both(), images_per_class=2), "2 are wanted", "1 images"),
    accepted("a set of one class", real({"cat/1.png": image()}, table=("cat",)), labels(0)),
    refused(
        "an archive that is not unpacked",
        real({"x.tar.gz": b"\x1f\x8b\x08"}, name="set/x.tar.gz"),
        "x.tar.gz",
        "unpack",
    ),
    refused("a zipped set", real({"x.zip": b"PK\x03\x04"}, name="set/x.zip"), "x.zip", "unpack"),
    refused("one image for a set", real({"x.png": image()}, name="set/x.png"), "x.png", "Parquet"),
    refused("a set that is not there", real({}, name="sets"), "sets", "no such set"),
    refused("an address of the web", named("https://example.org/cats.zip"), "https://", "hf://datasets"),
    refused("a name of nothing", named(""), "real data set = ''"),
    refused("a home that is nobody's", named("~nobody_of_this_name/cats"), "~nobody_of_this_name"),
    refused(
        "a list of broken images that may be skipped",
        real(both() | {"cat/2.png": b"x"}, name="set?on_broken=skip"),
        "more than 1 %",
        "cat/2.png",
    ),
    refused("an option that is none", real(both(), name="set?shuffle=1"), "'shuffle'", "on_broken"),
    accepted(
        "a question mark in the name of the folder",
        real({"a?b/cat/1.png": image()}, name="set/a?b", table=("cat",)),
        labels(0),
    ),
]
