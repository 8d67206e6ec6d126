"""The formats of image files, each taken apart and put together by the byte; for `images`."""
