"""What is a title, not prose: its words are capitalised by rule."""

_MAX_HEADING = 120  # characters


def is_heading(line: str) -> bool:
  """Whether a line is a title: marked as one, or capitalised throughout."""
  line = line.strip()
  if len(line) > _MAX_HEADING:
    return False
  if line.startswith("#") or (line.startswith("**") and line.endswith("**")):
    return True
  long = [word for word in line.split() if len(word) > 3 and word[0].isalpha()]
  if len(long) < 3 or line.endswith((".", "!", "?", '"', "\u201d")):
    return False
  return all(word[0].isupper() for word in long)
