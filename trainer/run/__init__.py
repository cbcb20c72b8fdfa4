"""One run: its state, its folder, what it logs, how it opens, resumes, is watched and stopped."""
