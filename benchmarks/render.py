"""Time the renderer on a case, and VTK on the same surfaces with the same cameras: `python benchmarks/render.py CASE`.

Prints milliseconds for both eyes, read-back included, as median and 99th percentile, their ratios, and the cost of
handing a frame to the driver (what Python adds to each frame). Ratios hold on one machine in one run only; CPU time
counts all threads and stands load from others better. VTK draws the same surfaces (solid ones lit, the others
translucent without sorting) and one line of text, neither marks nor panel. Our edges are smooth without multisampling,
so VTK's picture of like quality is the one with 4 samples. VTK is not a dependency: `pip install vtk`, else its part
is left out, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinguide.case import Case
from twinguide.frames import Transform
from twinguide.headset import View
from twinguide.render.context import create_context
from twinguide.render.looks import LOOKS
from twinguide.render.meshes import SurfaceInput, surfaces_of
from twinguide.render.pictures import read_pixels
from twinguide.render.pipeline import Renderer
from twinguide.render.stills import case_scene, look
from twinguide.scene import Point, Status, ToolView

HALF_FOV = np.deg2rad(30.0)
IPD = 0.063  # [m]
DISTANCE = 0.55  # [m]
WARM_UP = 5


def scene_of(case: Case):
    """Return a guidance scene of a case: a needle on its way, errors known, a panel."""
    scene = case_scene(case, "Guidance")
    way = case.plan.target - case.plan.entry
    tip = Point(case.plan.entry + 0.5 * way, np.eye(3) * 0.0004**2)
    needle = ToolView("needle", Status("valid"), tip, way / np.linalg.norm(way), "needle")
    target = Point(case.plan.target, np.diag([0.001, 0.0015, 0.0008]) ** 2)
    rows = (("normal", "Target error 95 % 2.1 mm"), ("caution", "Portal vein: 6.2 mm, at least 4.1 mm"))
    return replace(
        scene, panel=(*scene.panel, *rows), twin=replace(scene.twin, tools={"needle": needle}, target=target)
    )


def eyes(case: Case, size: int) -> tuple[Transform, list[View]]:
    """Return the head and both eyes, looking along the planned path at the target."""
    outwards = case.plan.entry - case.plan.target
    place = outwards / np.linalg.norm(outwards)
    head = look(case.plan.target, place, np.array([0.0, 0.0, 1.0]), DISTANCE)
    fov = (-HALF_FOV, HALF_FOV, HALF_FOV, -HALF_FOV)
    offsets = [Transform.of("headset", "eye", translation=np.array([x, 0.0, 0.0])) for x in (-IPD / 2, IPD / 2)]
    return head, [View(head @ offset, fov, size, size) for offset in offsets]


def ours(case: Case, surfaces: dict[str, SurfaceInput], size: int, frames: int, moving: bool, samples: int):
    """Return the times [ms] of whole frames and of their submission alone; `moving` deforms all surfaces each frame."""
    ctx = create_context()
    renderer = Renderer(ctx, surfaces, samples=samples)
    target = ctx.framebuffer([ctx.texture((size, size), 4)], ctx.depth_renderbuffer((size, size)))
    scene, (head, views) = scene_of(case), eyes(case, size)
    vertices = {name: np.ascontiguousarray(s.vertices, dtype=np.float32) for name, s in surfaces.items()}
    whole, submit = [], []
    for frame in range(frames + WARM_UP):
        if moving:
            moved = {n: replace(v, vertices=vertices[n], version=frame) for n, v in scene.twin.structures.items()}
            scene = replace(scene, twin=replace(scene.twin, structures=moved))
        scene = replace(scene, frame=frame)
        start, used = time.perf_counter(), time.process_time()
        submitted = 0.0
        for view in views:
            before = time.perf_counter()
            renderer.draw(scene, view, target, "additive", head=head)
            submitted += time.perf_counter() - before
            read_pixels(target)
        whole.append((time.perf_counter() - start, time.process_time() - used))
        submit.append((submitted, 0.0))
    renderer.release()
    ctx.release()
    return np.array(whole[WARM_UP:]) * 1e3, np.array(submit[WARM_UP:]) * 1e3


def vtks(case: Case, surfaces: dict[str, SurfaceInput], size: int, frames: int, samples: int):
    """Return the times [ms] of VTK's frames, both eyes with read-back."""
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # else it asks for an X server first
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

    scene = vtk.vtkRenderer()
    for surface in surfaces.values():
        look_of = LOOKS[surface.role]
        if look_of.kind == "absent":
            continue
        points, cells, data = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData()
        points.SetData(numpy_to_vtk(surface.vertices.astype(np.float32), deep=True))
        flat = surface.triangles.astype(np.int64).ravel()
        starts = np.arange(0, len(flat) + 1, 3, dtype=np.int64)
        cells.SetData(numpy_to_vtkIdTypeArray(starts, deep=True), numpy_to_vtkIdTypeArray(flat, deep=True))
        data.SetPoints(points)
        data.SetPolys(cells)
        normals = vtk.vtkPolyDataNormals()
        normals.SetInputData(data)
        normals.SplittingOff()
        normals.Update()
        mapper = vtk.vtkPolyDataMapper()
        mapper.SetInputData(normals.GetOutput())
        actor = vtk.vtkActor()
        actor.SetMapper(mapper)
        actor.GetProperty().SetColor(*surface.colour)
        actor.GetProperty().SetInterpolationToPhong()
        actor.GetProperty().SetSpecular(0.3)
        actor.GetProperty().BackfaceCullingOn()
        actor.GetProperty().SetOpacity(1.0 if look_of.kind == "solid" else 0.25)
        scene.AddActor(actor)
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(samples)
    window.SetSize(size, size)
    window.AddRenderer(scene)
    label = vtk.vtkTextActor()
    label.SetInput("Target error 95 % 2.1 mm")
    scene.AddViewProp(label)
    camera = scene.GetActiveCamera()
    camera.SetViewAngle(np.rad2deg(2 * HALF_FOV))
    camera.SetClippingRange(0.05, 20.0)
    _, views = eyes(case, size)
    times = []
    for _ in range(frames + WARM_UP):
        start, used = time.perf_counter(), time.process_time()
        for view in views:
            pose = view.stage_from_eye
            camera.SetPosition(*pose.translation)
            camera.SetFocalPoint(*(pose.translation - pose.rotation[:, 2]))
            camera.SetViewUp(*pose.rotation[:, 1])
            window.Render()
            pixels = vtk.vtkUnsignedCharArray()
            window.GetRGBACharPixelData(0, 0, size - 1, size - 1, 0, pixels)
            vtk_to_numpy(pixels)
        times.append((time.perf_counter() - start, time.process_time() - used))
    window.Finalize()
    return np.array(times[WARM_UP:]) * 1e3


def line(name: str, times: np.ndarray, base: np.ndarray) -> str:
    """Return a row of the table; `times` [ms], shape (n, 2), wall and CPU, as `base`."""
    (wall, cpu), (base_wall, base_cpu) = np.median(times, axis=0), np.median(base, axis=0)
    p99 = np.percentile(times[:, 0], 99)
    ratios = f"{wall / base_wall:6.2f} {cpu / base_cpu:6.2f}"
    return f"{name:40s} {wall:8.2f} {p99:8.2f} {cpu:8.2f}   {ratios}"


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="a case folder, as `twinguide case import` writes it")
    parser.add_argument("--size", type=int, default=512, help="pixels of one eye's side")
    parser.add_argument("--frames", type=int, default=60)
    given = parser.parse_args()
    case = Case.load(given.case)
    surfaces = surfaces_of(case)
    drawn = sum(len(s.triangles) for s in surfaces.values() if LOOKS[s.role].kind != "absent")
    ctx = create_context()
    print(f"{ctx.info['GL_RENDERER']}; {drawn} triangles; 2 x {given.size}²")
    ctx.release()
    print(f"{'both eyes, with read-back':40s} {'median':>8s} {'p99':>8s} {'cpu':>8s} ms {'times ours: wall, cpu':>14s}")
    whole, _ = ours(case, surfaces, given.size, given.frames, moving=False, samples=0)
    print(line("ours, surfaces at rest", whole, whole))
    moving, _ = ours(case, surfaces, given.size, given.frames, moving=True, samples=0)
    print(line("ours, every vertex new in every frame", moving, whole))
    print(line("ours, 4 samples", ours(case, surfaces, given.size, given.frames, moving=False, samples=4)[0], whole))
    tiny = {name: replace(surface, triangles=surface.triangles[:1]) for name, surface in surfaces.items()}
    _, submit = ours(case, tiny, 64, given.frames, moving=False, samples=0)
    wall = submit[:, 0]
    print(
        f"handing a frame over (surfaces of one triangle) {np.median(wall):6.2f}, p99 {np.percentile(wall, 99):6.2f} ms"
    )
    if importlib.util.find_spec("vtk") is None:
        print("VTK is not installed: no comparison")
        return
    print(line("VTK, jagged edges", vtks(case, surfaces, given.size, given.frames, samples=0), whole))
    print(line("VTK, smooth edges (4 samples)", vtks(case, surfaces, given.size, given.frames, samples=4), whole))


if __name__ == "__main__":
    main()
