"""Views of takes, datasets and motions as text, figures and pages."""
