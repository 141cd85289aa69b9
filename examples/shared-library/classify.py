"""classify.py - an exported program from Python, without a module of its own

usage: classify.py LIBRARY
"""
import ctypes
import os
import sys

library = ctypes.CDLL(os.path.abspath(sys.argv[1]))
Image, Scores = ctypes.c_uint8 * 784, ctypes.c_int32 * 10

image, scores = Image(), Scores()
for y in range(4, 24):  # a one, drawn by hand
    for x in range(13, 16):
        image[28 * y + x] = 255

wrong = library.digits_selftest()
print("self-test:", "failed" if wrong else "all rows have the scores they must")
library.digits_run(image, scores)
best = max(range(10), key=lambda m: scores[m])
print(f"the image: {best}, score {scores[best]}")
sys.exit(wrong != 0)
