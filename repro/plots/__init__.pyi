from .curves import Curve as Curve, Panel as Panel, curve_chart as curve_chart, line_chart as line_chart
from .grids import image_grid as image_grid, nearest_grid as nearest_grid
from .maps import plane_maps as plane_maps
from .matrix import heat_map as heat_map
from .rates import rate_chart as rate_chart
from .sheets import above as above, beside as beside, rendered as rendered, save_pixels as save_pixels
from .style import save_figure as save_figure
