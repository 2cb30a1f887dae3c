"""Every mode and colour space to 8 bits of sRGB."""
