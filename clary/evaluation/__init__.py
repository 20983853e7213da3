"""What a finished run is worth: the fit doctor's verdict, and scores of labelled predictions.

Plain functions over plain numbers, without numerical libraries: a server that only answers questions stays
light, and a metric series has thousands of points, not millions.
"""
