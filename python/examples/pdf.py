"""Write and read PDF files. No database here.

Reading is pypdf's work. The writer is just large enough for pages of plain text: it makes the
document that the pipeline takes where nobody names one.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import TypedDict

import text

try:
    import pypdf
except ImportError:
    raise ImportError("this example reads PDF files with pypdf: pip install pypdf") from None

LINES_A_PAGE = 58
SAMPLE_CHAPTERS = ("exceptions", "raise", "assert", "context-managers")


class Page(TypedDict):
    """What is known about one page. A page without prose (a scan) has no summary."""

    ref: str
    number: int
    heading: str | None
    words: int
    keywords: list[str]
    summary: str | None
    sha256: str


class Metadata(TypedDict):
    """What a document says about itself."""

    title: str | None
    author: str | None
    producer: str | None


def page_refs(file: str) -> list[str]:
    """Return one reference for each page: `FILE#page=1` and so on."""
    return [f"{file}#page={number}" for number in range(1, len(reader(file).pages) + 1)]


def metadata(file: str) -> Metadata:
    """Return title, author and producer; null for what the document does not say."""
    said = reader(file).metadata
    return Metadata(
        title=(said and said.title) or None,
        author=(said and said.author) or None,
        producer=(said and said.producer) or None,
    )


def read_page(ref: str) -> Page:
    """Extract one page: its heading, its key words, and the sentence that says most."""
    file, _, number = ref.rpartition("#page=")
    body = reader(file).pages[int(number) - 1].extract_text()
    lines = [line.strip() for line in body.splitlines() if mostly_letters(line)]
    return Page(
        ref=ref,
        number=int(number),
        heading=lines[0] if lines else None,
        words=len(body.split()),
        keywords=text.keywords(body),
        summary=text.summary(paragraphs(body)),
        sha256=hashlib.sha256(body.encode()).hexdigest(),
    )


def mostly_letters(line: str) -> bool:
    """Tell whether a line may be a heading: more letters than anything else."""
    return sum(map(str.isalpha, line)) > len(line.strip()) / 2


def paragraphs(body: str) -> str:
    """Set a heading or rule apart from the prose below it: extracted text has no empty lines."""
    lines = (line.strip() for line in body.splitlines())
    return "\n".join(f"\n{line}\n" if len(line) < 40 else line for line in lines)


def sample(folder: Path | None = None) -> str:
    """Write the sample document into a folder, or a new one, and return its path.

    It is the language reference on handling errors.
    """
    chapters = [topics[name].splitlines() for name in SAMPLE_CHAPTERS]
    pages = [
        lines[at : at + LINES_A_PAGE]
        for lines in chapters
        for at in range(0, len(lines), LINES_A_PAGE)
    ]
    made = folder or Path(tempfile.mkdtemp(prefix="perdure-"))
    return str(write(made / "errors.pdf", "Handling errors in Python", pages))


def write(path: Path, title: str, pages: Sequence[Sequence[str]]) -> Path:
    """Write pages of text lines as a PDF file (Courier, A4) and return its path."""
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for lines in pages:
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects) + 2} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode(),
            typeset(lines),
        ]
    objects.append(f"<< /Title ({escape(title)}) /Producer (perdure examples) >>".encode())
    path.write_bytes(assemble(objects))
    return path


def assemble(objects: Sequence[bytes]) -> bytes:
    """Put numbered objects into a file: the first is the catalogue, the last the information."""
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"<< /Size %d /Root 1 0 R /Info %d 0 R >>" % (size, size - 1)
    return body + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        table,
        trailer,
        len(body),
    )


def typeset(lines: Sequence[str]) -> bytes:
    """Return the content stream that draws these lines from the top of the page down."""
    drawn = "\n".join(f"({escape(line)}) Tj T*" for line in lines)
    content = f"BT /F1 9 Tf 13 TL 50 790 Td\n{drawn}\nET".encode("cp1252", "replace")
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)


def escape(line: str) -> str:
    """Return the line as the inside of a PDF string."""
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def reader(file: str) -> pypdf.PdfReader:
    """Open a document. Raises FileNotFoundError, or what pypdf finds wrong with the file."""
    return pypdf.PdfReader(file)
