"""Views of a run that follow it: the dashboard and the picture that stays."""
