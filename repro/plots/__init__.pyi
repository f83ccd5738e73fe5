from .charts import Curve as Curve, Panel as Panel, line_chart as line_chart, plane_maps as plane_maps
from .figures import (
    curve_chart as curve_chart,
    heat_map as heat_map,
    image_grid as image_grid,
    nearest_grid as nearest_grid,
    rate_chart as rate_chart,
    save_figure as save_figure,
)
