"""The PDF helpers read what they wrote."""

from pathlib import Path

import pdf
import pytest
from pypdf.errors import PyPdfError


def test_written_pdf_can_be_read(tmp_path: Path) -> None:
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


def test_page_without_text_has_no_heading_and_summary(tmp_path: Path) -> None:
    file = str(pdf.write(tmp_path / "blank.pdf", "Blank", [[]]))
    page = pdf.read_page(pdf.page_refs(file)[0])
    assert (page["heading"], page["summary"], page["words"], page["keywords"]) == (
        None,
        None,
        0,
        [],
    )


def test_document_may_have_no_pages(tmp_path: Path) -> None:
    assert pdf.page_refs(str(pdf.write(tmp_path / "none.pdf", "None", []))) == []


def test_file_that_is_not_a_pdf_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "no.pdf").write_text("hello")
    with pytest.raises(PyPdfError):
        pdf.page_refs(str(tmp_path / "no.pdf"))


def test_sample_has_text_on_several_pages(tmp_path: Path) -> None:
    refs = pdf.page_refs(pdf.sample(tmp_path))
    assert len(refs) >= 4
    assert all(pdf.read_page(ref)["summary"] for ref in refs)
