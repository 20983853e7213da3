"""Script mode of Chainer."""
