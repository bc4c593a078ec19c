"""The PDF helpers write what they are given and read what is there."""

from pathlib import Path

import pdf
import pytest
from pypdf.errors import PyPdfError


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    lines = [
        "A heading",
        "",
        r"A (bracket), a \ and an é stand on this first page of two.",
        "The end.",
    ]
    file = str(pdf.write(tmp_path / "two.pdf", "Two (2) pages", [lines, ["Second", "page"]]))
    first, second = (pdf.read_page(ref) for ref in pdf.page_refs(file))
    assert pdf.metadata(file) == {
        "title": "Two (2) pages",
        "author": None,
        "producer": "perdure examples",
    }
    assert (first["number"], first["heading"], second["heading"]) == (1, "A heading", "Second")
    assert first["summary"] == lines[2]
    assert first["words"] == sum(len(line.split()) for line in lines)


def test_a_page_without_text_has_nulls(tmp_path: Path) -> None:
    file = str(pdf.write(tmp_path / "blank.pdf", "Blank", [[]]))
    page = pdf.read_page(pdf.page_refs(file)[0])
    assert (page["heading"], page["summary"], page["words"], page["keywords"]) == (
        None,
        None,
        0,
        [],
    )


def test_a_document_may_have_no_pages(tmp_path: Path) -> None:
    assert pdf.page_refs(str(pdf.write(tmp_path / "none.pdf", "None", []))) == []


def test_a_file_that_is_no_pdf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.pdf").write_text("hello")
    with pytest.raises(PyPdfError):
        pdf.page_refs(str(tmp_path / "no.pdf"))


def test_the_sample_is_real_text_on_several_pages() -> None:
    refs = pdf.page_refs(pdf.sample())
    assert len(refs) >= 4
    assert all(pdf.read_page(ref)["summary"] for ref in refs)
