"""Where images and their true objects come from: files, glyphs, generated scenes, COCO folders."""
