"""glmasr: self-supervised speech recognition, from unlabelled audio to a WER report."""
