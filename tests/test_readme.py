import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_composing_example_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Composing layers")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    scope = {}
    exec(code, scope)
    assert scope["model"].output_shape[0] == (None, None, 30_000)


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), (page.name, target)


def test_table_of_layers_names_all_layers():
    from bmt_keras import layers

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    exported = {name for name in layers.__all__ if name[0].isupper()} - {
        "CrossAttentionBlock"
    }
    assert exported <= set(re.findall(r"^\| `(\w+)`", readme, re.MULTILINE))
