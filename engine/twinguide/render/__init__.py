"""Draw a `Scene` into each eye: the only room that imports moderngl, and only its GL files do.

context: the GL context and the shaders. camera: one eye's numbers, pure. looks: how each role is drawn, and how a state
changes that, pure. meshes: the structures' surfaces on the GPU. marks: what is drawn besides surfaces, pure. strokes:
those and text on the GPU. glyphs: the atlas, made once. panels: the panel's rows
and their setting, pure. hanging: where text hangs in the room, pure. pipeline: the renderer. pictures: read, hash,
measure, save. video, stills: files.
"""
