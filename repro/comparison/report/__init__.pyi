from .page import check_report_path as check_report_path, write_report as write_report
