"""What a run leaves behind: result.h5, summary.json, zone.nii.gz, scene.png and report.html."""
