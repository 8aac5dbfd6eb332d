import numpy as np
import pytest
from PIL import Image

from ssdir.data.images import read_image
from ssdir.data.orientation import turn_box
from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.data.readers.voc.reader import is_voc, read_voc, voc_splits
from ssdir.errors import InputError

OBJECT = "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
A = OBJECT.format("dog", "<pose>Left</pose><difficult>1</difficult>", 1, 1, 60, 40) + (
    "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part></object>"
)
B = OBJECT.format("cat", "", 11, 21.0, 11, 30) + "</object>"
OUTSIDE = OBJECT.format("dog", "<difficult>0</difficult>", -4, 31, 20, 99) + "</object>"


def write_xml(root, stem, objects="", size="<size><width>60</width><height>40</height><depth>3</depth></size>"):
    text = f"<annotation><folder>VOC</folder><filename>{stem}.png</filename>{size}{objects}</annotation>"
    (root / "Annotations" / f"{stem}.xml").write_text(text)


@pytest.fixture
def golden(tmp_path):
    root = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for stem in "abcde":
        Image.new("RGB", (60, 40), "red").save(root / "JPEGImages" / f"{stem}.png")
    write_xml(root, "a", A + B)
    write_xml(root, "b")
    write_xml(root, "d", OUTSIDE)
    write_xml(root, "e", OBJECT.format("bird", "", 1, 1, 2, 2) + "</object>")
    main = root / "ImageSets" / "Main"
    (main / "train.txt").write_text("a\nb\nc\nd\n")
    (main / "val.txt").write_text("e\n")
    (main / "trainval.txt").write_text("a\nb\nc\nd\ne\n")
    (main / "dog_train.txt").write_text("a  1\nb -1\n")
    return root


def test_a_golden_sample_is_read(golden):
    assert is_voc(golden)
    assert find_layout(golden).name == "Pascal VOC"
    assert voc_splits(golden) == ["train", "val"]
    table = read_voc(golden, "train")
    assert table.image_names == [f"JPEGImages/{stem}.png" for stem in "abcd"]
    assert table.image_sizes.tolist() == [[40, 60]] * 4
    assert table.category_names == ["bird", "cat", "dog"]
    assert table.image.tolist() == [0, 0, 3]
    assert table.category.tolist() == [2, 1, 2]
    assert table.boxes_px.tolist() == [[0, 0, 60, 40], [10, 20, 11, 30], [-5, 30, 20, 99]]
    assert table.difficult.tolist() == [True, False, False]
    assert not table.ignored.any()
    assert any("without an XML file" in note and note.endswith("1 ('c')") for note in table.notes)
    assert any("from pixel 0 or less" in note and note.endswith(": 1") for note in table.notes)
    assert len(table.notes) == 2


def test_what_macos_leaves_beside_files_is_passed_over(golden):
    for name in ("Annotations/._a.xml", "ImageSets/Main/._train.txt", "JPEGImages/._a.png"):
        (golden / name).write_bytes(b"\x00\x05\x16\x07")
    assert voc_splits(golden) == ["train", "val"]
    assert read_voc(golden, "train").category_names == ["bird", "cat", "dog"]


def test_splits_agree_on_the_classes(golden):
    table = read_voc(golden, "val")
    assert table.category_names == ["bird", "cat", "dog"]
    assert table.category.tolist() == [0]
    assert len(read_voc(golden, "trainval").image_names) == 5
    data = open_dataset(golden, "train", classes=["dog"])
    assert [len(data.objects(i)) for i in range(4)] == [1, 0, 0, 1]


def test_a_list_of_classes_gives_their_order(golden):
    (golden / "classes.txt").write_text("dog\nzebra\nbird\ncat\n")
    table = read_voc(golden, "train")
    assert table.category_names == ["dog", "zebra", "bird", "cat"]
    assert table.category.tolist() == [0, 3, 0]
    (golden / "classes.txt").write_text("dog\nbird\ncats\n")
    with pytest.raises(InputError, match=r"a\.xml: class 'cat' is not in .*classes\.txt; did you mean 'cats'"):
        read_voc(golden, "train")


def test_images_without_lists_are_divided(golden):
    for path in (golden / "ImageSets" / "Main").iterdir():
        path.unlink()
    assert voc_splits(golden) == ["train", "val", "test"]
    write_xml(golden, "c")
    parts = [read_voc(golden, split).image_names for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert sorted(name for part in parts for name in part) == read_voc(golden, "all").image_names
    with pytest.raises(InputError, match="not divided into splits"):
        read_voc(golden, "trainval")


BOX = "<object><name>cat</name><bndbox>{}</bndbox></object>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", "not valid XML at line 3"),
        ("<labels/>", "root is 'labels'"),
        ("", "not valid XML at line 1"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "can't be trusted"),
        ("<annotation><object><name> </name></object></annotation>", "object 1 has no name"),
        (f"<annotation>{BOX.format('<xmin>1</xmin>')}</annotation>", r"\(cat\): bndbox/ymin .* \(it is missing\)"),
        ("<annotation><object><name>cat</name></object></annotation>", "bndbox/xmin must be a number"),
        (
            f"<annotation>{BOX.format('<xmin>one</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>')}</annotation>",
            "bndbox/xmin must be a number .got 'one'",
        ),
        (
            f"<annotation>{BOX.format('<xmin>9</xmin><ymin>1</ymin><xmax>2</xmax><ymax>nan</ymax>')}</annotation>",
            "bndbox/ymax must be a number .got 'nan'",
        ),
        (
            "<annotation><size><width>70</width><height>40</height></size></annotation>",
            r"b\.xml: '.*b\.png' has 60 x 40 pixels, but is annotated as 70 x 40: use the image annotated",
        ),
    ],
)
def test_broken_xml_is_named(golden, text, message):
    path = golden / "Annotations" / "b.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_voc(golden, "train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entities_are_not_expanded(golden, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    text = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><annotation><filename>&x;</filename></annotation>'
    (golden / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(InputError, match="can't be trusted"):
        read_voc(golden, "train")


def test_missing_images_lists_and_annotations(golden, tmp_path):
    with pytest.raises(InputError, match=r"\(there is train, val\): ImageSets/Main/test\.txt is missing"):
        read_voc(golden, "test")
    with pytest.raises(InputError, match="does not exist"):
        read_voc(tmp_path / "no", "train")
    (golden / "ImageSets" / "Main" / "train.txt").write_text("a\nx\n")
    with pytest.raises(InputError, match="no image 'x'"):
        read_voc(golden, "train")
    (golden / "ImageSets" / "Main" / "train.txt").write_text("c\n")
    assert len(read_voc(golden, "train").image) == 0  # Other splits have XML files.
    (golden / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(InputError, match="the split is empty"):
        read_voc(golden, "train")


def test_duplicates(golden):
    (golden / "ImageSets" / "Main" / "train.txt").write_text("a\nb\na\n")
    write_xml(golden, "a", B + B)
    table = read_voc(golden, "train")
    assert table.image_names == ["JPEGImages/a.png", "JPEGImages/b.png"]
    assert len(table.image) == 1
    assert any("listed more than once, taken once: 1" in note for note in table.notes)
    assert any("left out: 1" in note for note in table.notes)
    Image.new("L", (60, 40)).save(golden / "JPEGImages" / "a.jpg")
    assert read_voc(golden, "train").image_names[0] == "JPEGImages/a.png"  # The XML names it.
    Image.new("L", (60, 40)).save(golden / "JPEGImages" / "c.jpg")
    with pytest.raises(InputError, match=r"several images called 'c' \(c\.jpg, c\.png\)"):
        read_voc(golden, "trainval")


def test_names_may_end_as_flags_do(golden):
    for stem in ("e", "e 1"):
        Image.new("L", (60, 40)).save(golden / "JPEGImages" / f"{stem}.png")
        write_xml(golden, stem)
    (golden / "ImageSets" / "Main" / "val.txt").write_text("e 1\n")
    assert voc_splits(golden) == ["train", "val"]
    assert read_voc(golden, "val").image_names == ["JPEGImages/e 1.png"]
    (golden / "ImageSets" / "Main" / "test.txt").write_text("c\na\n")  # The first has no XML file.
    assert voc_splits(golden) == ["test", "train", "val"]
    assert read_voc(golden, "dog_train").image_names == ["JPEGImages/a.png", "JPEGImages/b.png"]


def test_a_file_without_a_size_takes_that_of_the_image(golden):
    for size in ("", "<size><width>0</width><height>0</height></size>"):
        write_xml(golden, "a", B, size)
        assert read_voc(golden, "train").image_sizes[0].tolist() == [40, 60]


def test_boxes_of_a_reduced_image_are_scaled(golden):
    write_xml(golden, "a", B, "<size><width>60</width><height>40</height></size>")
    boxes = read_voc(golden, "train").boxes_px
    write_xml(golden, "a", B, "<size><width>30</width><height>20</height></size>")
    table = read_voc(golden, "train")
    assert table.image_sizes[0].tolist() == [40, 60]
    assert table.boxes_px[0].tolist() == (2 * boxes[0]).tolist()
    assert "images of another size than annotated, whose boxes were scaled: 1 ('JPEGImages/a.png')" in table.notes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_turned_images(golden, orientation):
    """Boxes of an XML file with the size as stored are turned with the image, and so cover the white spot."""
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[5:10, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = golden / "JPEGImages" / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    upright = read_image(path)
    size = upright.shape[:2]
    rows, columns = np.nonzero(upright[..., 0])
    spot = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert list(turn_box((10, 5, 30, 10), size, orientation)) == spot
    if orientation >= 5:
        write_xml(golden, "a", OBJECT.format("cat", "", 11, 6, 30, 10) + "</object>")
        table = read_voc(golden, "train")
        assert table.boxes_px[0].tolist() == spot
        assert table.image_sizes[0].tolist() == [60, 40]
        assert any("turned by their EXIF orientation: 1" in note for note in table.notes)
    # With the size after EXIF orientation, or where both sizes are equal, boxes are of the turned picture.
    xyxy = OBJECT.format("cat", "", spot[0] + 1, spot[1] + 1, spot[2], spot[3]) + "</object>"
    write_xml(golden, "a", xyxy, f"<size><width>{size[1]}</width><height>{size[0]}</height></size>")
    assert read_voc(golden, "train").boxes_px[0].tolist() == spot


def test_grey_and_cmyk_images(golden):
    for stem in "ab":
        (golden / "JPEGImages" / f"{stem}.png").unlink()
    Image.new("L", (60, 40), 128).save(golden / "JPEGImages" / "a.jpg")
    Image.new("CMYK", (60, 40), (0, 90, 90, 0)).save(golden / "JPEGImages" / "b.jpg")
    data = open_dataset(golden, "train")
    assert [tuple(data[i][0].shape) for i in range(2)] == [(3, 40, 60)] * 2


# Elements that are repeated, or in the wrong order -------------------------------------------------------

BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def test_all_boxes_of_one_object_are_read(golden):
    three = "".join(BNDBOX.format(x, 2, x + 9, 20) for x in (1, 21, 41))
    write_xml(golden, "a", f"<object><name>cat</name><difficult>1</difficult>{three}</object>")
    table = read_voc(golden, "train")
    first = table.image == 0
    assert table.boxes_px[first].tolist() == [[0, 1, 10, 20], [20, 1, 30, 20], [40, 1, 50, 20]]
    assert table.difficult[first].all()
    broken = three + BNDBOX.format(1, 2, "x", 4)
    write_xml(golden, "a", f"<object><name>cat</name>{broken}</object>")
    with pytest.raises(InputError, match=r"object 1 \(cat\), bndbox 4: bndbox/xmax must be a number \(got 'x'\)"):
        read_voc(golden, "train")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            f"<object><name>cat</name><name>dog</name>{BNDBOX.format(1, 1, 2, 2)}</object>",
            "2 elements <name> that differ",
        ),
        (
            "<object><name>cat</name><bndbox><xmin>1</xmin><xmin>3</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object>",
            "2 elements <xmin> that differ",
        ),
        (f"<size><width>1</width></size>{B}", "2 elements <size> that differ"),
        (f"<objects>{B}</objects>", "1 of its objects are within other elements"),
    ],
)
def test_contradicting_elements_are_refused(golden, objects, message):
    write_xml(golden, "a", objects)
    with pytest.raises(InputError, match=message) as caught:
        read_voc(golden, "train")
    assert str(golden / "Annotations" / "a.xml") in str(caught.value)


def test_repeated_equal_elements_are_read(golden):
    write_xml(golden, "a", f"<object><name>cat</name><name> cat </name>{BNDBOX.format(1, 1, 2, 2)}</object>")
    assert read_voc(golden, "train").boxes_px[0].tolist() == [0, 0, 2, 2]


def test_swapped_corners_are_counted(golden):
    swapped = "".join(
        f"<object><name>cat</name>{BNDBOX.format(*xyxy)}</object>" for xyxy in ((9, 2, 4, 8), (4, 8, 9, 2))
    )
    write_xml(golden, "a", swapped + B)
    table = read_voc(golden, "train")
    assert table.boxes_px[0].tolist() == [3, 1, 9, 8]
    (note,) = [note for note in table.notes if "swapped" in note]
    assert note.endswith(": 2 (the first in JPEGImages/a.png)")


def test_rotated_rectangles_have_their_tight_box(golden):
    attribute = "<attribute><name>{}</name><value>{}</value></attribute>"
    given = "".join(attribute.format(*each) for each in (("occluded", "0"), ("rotation", "90.0")))
    write_xml(
        golden,
        "a",
        f"<object><name>cat</name>{BNDBOX.format(21, 6, 30, 25)}<attributes>{given}</attributes></object>{B}",
    )
    table = read_voc(golden, "train")
    assert table.boxes_px[0] == pytest.approx([15, 10, 35, 20])
    (note,) = [note for note in table.notes if "rotation" in note]
    assert note.endswith("of which the tight box is taken: 1 (the first in JPEGImages/a.png)")


def test_all_faults_are_named_at_once(golden):
    write_xml(golden, "a", "<object><name>cat</name></object><object/>" + B)
    (golden / "Annotations" / "b.xml").write_text("<annotation>")
    write_xml(golden, "d", OUTSIDE, "<size><width>9</width><height>9</height></size>")
    (golden / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nd\nx\n")
    with pytest.raises(InputError, match="split train: 5 faults: ") as caught:
        read_voc(golden, "train")
    for part in (
        "a.xml: object 1 (cat)",
        "a.xml: object 2 has no name",
        "b.xml: not valid XML",
        "9 x 9",
        "no image 'x'",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b'<?xml version="1.0" encoding="no-such-code"?><annotation/>',
        '<?xml version="1.0" encoding="gb2312"?><annotation>\u732b</annotation>'.encode("gb2312"),
        b"\xff" * 20,
        b"<annotation>" + b"<a>" * 100_000,
        b"<annotation>" + b" " * 5_000_000 + b"</annotation>",
        b"<annotation><size><width>1e999</width></size></annotation>",
    ],
)
def test_absurd_xml_is_one_sentence(golden, content):
    (golden / "Annotations" / "a.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.xml") as caught:
        read_voc(golden, "train")
    assert "\n" not in str(caught.value)


def test_deep_xml_is_read(golden):
    deep = "<a>" * 50_000 + "</a>" * 50_000
    write_xml(golden, "a", f"{deep}{B}")
    assert read_voc(golden, "train").boxes_px[0].tolist() == [10, 20, 11, 30]


# Where files lie ------------------------------------------------------------------------------------------


def test_what_no_list_and_no_image_names_is_counted(golden):
    Image.new("L", (60, 40)).save(golden / "JPEGImages" / "z.png")
    write_xml(golden, "lone", B)
    notes = read_voc(golden, "val").notes
    assert [note for note in notes if "images in none of the lists, passed over: 1 ('z')" in note]
    assert [note for note in notes if "XML files without an image, passed over: 1" in note and "lone.xml" in note]


def test_lists_may_name_files_and_images_may_lie_in_folders(golden):
    for folder in ("Annotations", "JPEGImages"):
        (golden / folder / "sub").mkdir()
    Image.new("L", (60, 40)).save(golden / "JPEGImages" / "sub" / "f.png")
    write_xml(golden, "sub/f", B)
    (golden / "ImageSets" / "Main" / "val.txt").write_text("e.png\nJPEGImages/sub/f.png\r\n")
    assert read_voc(golden, "val").image_names == ["JPEGImages/e.png", "JPEGImages/sub/f.png"]


def test_names_with_blanks_at_their_ends(golden):
    Image.new("L", (60, 40)).save(golden / "JPEGImages" / "e .png")
    write_xml(golden, "e ", B)
    (golden / "ImageSets" / "Main" / "val.txt").write_text("e \ne\n")
    table = read_voc(golden, "val")
    assert table.image_names == ["JPEGImages/e .png", "JPEGImages/e.png"]
    assert table.boxes_px[0].tolist() == [10, 20, 11, 30]


def test_names_that_lead_elsewhere_are_no_images(golden, tmp_path):
    Image.new("L", (60, 40)).save(tmp_path / "secret.png")
    (golden / "ImageSets" / "Main" / "val.txt").write_text("../../secret\n")
    with pytest.raises(InputError, match=r"no image '\.\./\.\./secret'"):
        read_voc(golden, "val")


def write_beside(folder, *stems):
    (folder / "Annotations").mkdir(parents=True)
    for stem in stems:
        Image.new("RGB", (60, 40), "red").save(folder / f"{stem}.png")
        write_xml(folder, stem, B)
        (folder / "Annotations" / f"{stem}.xml").rename(folder / f"{stem}.xml")
    (folder / "Annotations").rmdir()


def test_xml_beside_images(tmp_path):
    write_beside(tmp_path, "p0", "p1", "p2")
    (tmp_path / "p2.xml").rename(tmp_path / "p2.txt")
    assert find_layout(tmp_path).name == "VOC beside images"
    assert voc_splits(tmp_path) == ["train", "val", "test"]
    table = read_voc(tmp_path, "all")
    assert table.image_names == ["p0.png", "p1.png", "p2.png"]
    assert table.boxes_px.tolist() == [[10, 20, 11, 30]] * 2
    assert any("without an XML file" in note and note.endswith("1 ('p2')") for note in table.notes)
    assert any("text files beside images, passed over: 1" in note and "p2.txt" in note for note in table.notes)


def test_xml_beside_images_in_a_folder_for_each_split(tmp_path):
    for split in ("train", "valid"):
        write_beside(tmp_path / split, split[0])
    Image.new("RGB", (60, 40)).save(tmp_path / "loose.png")
    assert voc_splits(tmp_path) == ["train", "val"]
    table = read_voc(tmp_path, "val")
    assert (table.image_names, table.boxes_px.tolist()) == (["valid/v.png"], [[10, 20, 11, 30]])
    assert any("images beside the folders of the splits, passed over: 1" in note for note in table.notes)
    with pytest.raises(InputError, match=r"no split 'test' \(there is train, val\): it needs a folder"):
        read_voc(tmp_path, "test")


def test_other_xml_beside_images_is_no_annotation(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text("<metadata/>")
    with pytest.raises(InputError, match="no layout that ssdir knows"):
        find_layout(tmp_path)
