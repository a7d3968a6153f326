"""One line and the paper of everything that has a name.

Standard library only: `fluojax list` and the refusal of a misspelt name answer
without importing jax. A test holds these names equal to the registries.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """A line on what it is, and its source."""

    line: str
    paper: str = ""


class Cost(NamedTuple):
    """What a model of one class costs.

    Attributes:
      parameters: trainable, for images of one channel.
      gflops: 1e9 operations for one image, two per multiply-add.
      image: rows x columns x channels of that image.
      divisor: sizes that are no multiple of it are padded.
      ranks: of the images it takes.
    """

    parameters: int
    gflops: float
    image: str
    divisor: int
    ranks: tuple[int, ...]


LOSSES = {
    "cross_entropy_loss": Entry("cross-entropy, weighted by class and by pixel", "-"),
    "focal_loss": Entry(
        "cross-entropy focused on pixels predicted badly", "Lin et al., ICCV 2017"
    ),
    "dice_loss": Entry(
        "1 minus the overlap of areas (F1 of soft masks)", "Milletari et al., 3DV 2016"
    ),
    "jaccard_loss": Entry(
        "1 minus intersection over union of soft masks", "Rahman and Wang, ISVC 2016"
    ),
    "tversky_loss": Entry(
        "Dice with separate prices for false positives and negatives",
        "Salehi et al., MLMI 2017",
    ),
    "focal_tversky_loss": Entry(
        "power of the Tversky loss", "Abraham and Khan, ISBI 2019"
    ),
    "unified_focal_loss": Entry(
        "focal Tversky + focal cross-entropy, asymmetric on request",
        "Yeung et al., Comput. Med. Imaging Graph. 2022",
    ),
    "generalized_dice_loss": Entry(
        "Dice of all classes at once, each weighted by its rarity",
        "Sudre et al., DLMIA 2017",
    ),
    "lovasz_loss": Entry(
        "Jaccard index of the sorted errors (hinge or softmax)",
        "Berman et al., CVPR 2018",
    ),
    "power_mae_loss": Entry(
        "power of the mean absolute error, the study's focal Tversky in effect",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_loss": Entry(
        "cross-entropy + Dice + focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023",
    ),
    "combined_focal_tversky_loss": Entry(
        "cross-entropy + Dice + focal Tversky",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023",
    ),
    "contour_weighted_loss": Entry(
        "cross-entropy and squared Dice, contours weigh more",
        "IMSAHLO, arXiv 2601.11645, equations 6-8",
    ),
    "separable_contour_loss": Entry(
        "contours and the rest of the image apart", "Huang and Sui, ICIP 2024"
    ),
    "boundary_loss": Entry(
        "probability times signed distance to the border", "Kervadec et al., MIDL 2019"
    ),
    "hausdorff_loss": Entry(
        "squared errors, dearer the farther from both borders",
        "Karimi and Salcudean, TMI 2020",
    ),
    "soft_cldice_loss": Entry(
        "overlap of soft centre lines", "Shit et al., clDice, CVPR 2021"
    ),
    "dice_cldice_loss": Entry("Dice + soft clDice", "Shit et al., clDice, CVPR 2021"),
    "cbdice_loss": Entry(
        "centre lines and radii together", "Shi et al., cbDice, MICCAI 2024"
    ),
    "local_moment_loss": Entry(
        "spatial moments in windows around every pixel", "design of this project"
    ),
    "instance_moment_loss": Entry(
        "area, centroid and shape of each instance", "design of this project"
    ),
    "global_moment_loss": Entry(
        "spatial moments of the whole image", "design of this project"
    ),
    "residual_moment_loss": Entry(
        "coordinate-weighted residuals",
        "our reading of Wang et al., arXiv 2106.14178 (abstract)",
    ),
    "blob_loss": Entry(
        "each instance alone with the background, averaged",
        "Kofler et al., arXiv 2205.08209",
    ),
    "ici_loss": Entry(
        "instances with the predictions that touch them, centres, the whole",
        "Rachmadi et al., MIDL 2023",
    ),
    "dual_ici_loss": Entry(
        "ICI from both sides: instances and predicted components",
        "Rachmadi et al. (extended program)",
    ),
    "cc_dice_loss": Entry(
        "Dice + cross-entropy in the Voronoi region of each instance",
        "Bouteille et al., arXiv 2511.17146",
    ),
    "imsahlo_loss": Entry(
        "Tversky + contours + focal + clDice", "IMSAHLO, arXiv 2601.11645"
    ),
    "weighted_sum": Entry("weighted sum of named losses", "-"),
    "bce_w50": Entry(
        "cross-entropy, cells weigh 50, mean over pixels",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "bce_w100": Entry(
        "cross-entropy, cells weigh 100, mean over pixels",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "bce_w200": Entry(
        "cross-entropy, cells weigh 200, mean over pixels",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "dice": Entry(
        "Dice of the foreground, smoothing 1",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "focal": Entry(
        "focal, gamma 2, no alpha",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "focal_tversky_slides": Entry(
        "focal Tversky 0.3/0.7, exponent 2, smoothing 1e-6",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_balanced": Entry(
        ".3 cross-entropy + .3 Dice + .4 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_overcrowd": Entry(
        ".2 cross-entropy + .5 Dice + .3 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_cellvit": Entry(
        ".5 cross-entropy + .3 Dice + .5 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_ft_balanced": Entry(
        ".3 cross-entropy + .3 Dice + .4 focal Tversky",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_ft_overcrowd": Entry(
        ".2 cross-entropy + .5 Dice + .3 focal Tversky",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "combined_ft_cellvit": Entry(
        ".5 cross-entropy + .3 Dice + .5 focal Tversky",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (slides)",
    ),
    "bce_w50_fluocells": Entry(
        "cross-entropy, cells weigh 50, divided by the weights",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "bce_w100_fluocells": Entry(
        "cross-entropy, cells weigh 100, divided by the weights",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "bce_w200_fluocells": Entry(
        "cross-entropy, cells weigh 200, divided by the weights",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "dice_fluocells": Entry(
        "Dice of both classes, smoothing 1e-6",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "focal_fluocells": Entry(
        "focal, gamma 2, no alpha",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "focal_tversky_fluocells": Entry(
        "mean absolute error to the power 4/3",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_balanced_fluocells": Entry(
        ".3 cross-entropy + .3 Dice summed over batch and classes + .4 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_overcrowd_fluocells": Entry(
        ".2 cross-entropy + .5 Dice summed over batch and classes + .3 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_cellvit_fluocells": Entry(
        ".5 cross-entropy + .2 Dice summed over batch and classes + .5 focal",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_ft_balanced_fluocells": Entry(
        ".3 cross-entropy + .3 Dice summed over batch and classes + .4 power of the error",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_ft_overcrowd_fluocells": Entry(
        ".2 cross-entropy + .5 Dice summed over batch and classes + .3 power of the error",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "combined_ft_cellvit_fluocells": Entry(
        ".5 cross-entropy + .2 Dice summed over batch and classes + .5 power of the error",
        "Clissa, Macaluso and Zoccoli, ICIAP Workshops 2023 (program)",
    ),
    "focal_tversky": Entry(
        "focal Tversky 0.3/0.7, exponent 0.75, smoothing 1",
        "Abraham and Khan, ISBI 2019",
    ),
    "focal_retinanet": Entry("focal, gamma 2, alpha 0.25", "Lin et al., ICCV 2017"),
    "unified_focal_symmetric": Entry(
        "unified focal loss, both parts focal on all classes",
        "Yeung et al., Comput. Med. Imaging Graph. 2022",
    ),
    "contour_imsahlo": Entry(
        "contour-weighted loss with a smoothing of 1e-6", "IMSAHLO, arXiv 2601.11645"
    ),
    "imsahlo": Entry(
        "hybrid loss, weights .4 .2 .3 .1 (text of the paper)",
        "IMSAHLO, arXiv 2601.11645",
    ),
    "imsahlo_ablation": Entry(
        "hybrid loss, weights .4 .3 .2 .1 (its ablation section)",
        "IMSAHLO, arXiv 2601.11645",
    ),
    "cbdice_trainer": Entry(
        "2 cross-entropy + Dice + cbDice", "Shi et al., cbDice, MICCAI 2024 (program)"
    ),
    "blob": Entry("2 Dice + blob loss of Dice", "Kofler et al., arXiv 2205.08209"),
    "ici": Entry(
        "1/4 whole image, 1/2 instances, 1/4 centres", "Rachmadi et al., MIDL 2023"
    ),
    "dual_ici": Entry("the same from both sides", "Rachmadi et al. (extended program)"),
    "cc_dice": Entry(
        "Dice + cross-entropy per Voronoi region", "Bouteille et al., arXiv 2511.17146"
    ),
    "focal_imsahlo": Entry(
        "focal, gamma 3, alpha 0.8", "Jain et al., arXiv 2601.11645"
    ),
    "tversky_imsahlo": Entry(
        "Tversky 0.3/0.7, smoothing 1e-6", "Jain et al., arXiv 2601.11645"
    ),
}

MODELS = {
    "attention_unet": Entry(
        "U-Net with additive attention gates on the skips",
        "Oktay et al., MIDL 2018",
    ),
    "attention_unet_nano": Entry(
        "Attention U-Net at an eighth of the width",
        "Oktay et al., MIDL 2018",
    ),
    "attention_unet_small": Entry(
        "Attention U-Net at half the width",
        "Oktay et al., MIDL 2018",
    ),
    "attention_unet_tiny": Entry(
        "Attention U-Net at a quarter of the width",
        "Oktay et al., MIDL 2018",
    ),
    "cresunet": Entry(
        "c-ResUnet: residual U-Net with a colour projection and a 5x5 bottleneck",
        "Morelli et al., Scientific Reports 2021",
    ),
    "cresunet_nano": Entry(
        "c-ResUnet at half the width",
        "Morelli et al., Scientific Reports 2021",
    ),
    "deeplabv3plus": Entry(
        "dilated ResNet-50 with a pyramid of rates, 2-D",
        "Chen et al., ECCV 2018",
    ),
    "deeplabv3plus_r34": Entry(
        "DeepLabV3+ with a ResNet-34, 2-D",
        "Chen et al., ECCV 2018",
    ),
    "dtasunet": Entry(
        "local and global attention, gated decoder; our reconstruction",
        "after DTASUNet, Scientific Reports 2024",
    ),
    "dtasunet_small": Entry(
        "DTASUNet (our reconstruction) at two thirds of the width",
        "after DTASUNet, Scientific Reports 2024",
    ),
    "imsahlo": Entry(
        "multi-scale dense blocks and attention, widths ours",
        "Jain et al., arXiv 2601.11645, 2026",
    ),
    "imsahlo_large": Entry(
        "IMSAHLO at twice the width, widths ours",
        "Jain et al., arXiv 2601.11645, 2026",
    ),
    "mobilevit": Entry(
        "MobileViT-S with the DeepLabV3 head",
        "Mehta and Rastegari, ICLR 2022",
    ),
    "mobilevit_xs": Entry(
        "MobileViT-XS with the DeepLabV3 head",
        "Mehta and Rastegari, ICLR 2022",
    ),
    "mobilevit_xxs": Entry(
        "MobileViT-XXS with the DeepLabV3 head",
        "Mehta and Rastegari, ICLR 2022",
    ),
    "neurosegnet": Entry(
        "residual U-Net with squeeze-excitation and Swish, widths ours",
        "Jain et al., arXiv 2601.11645, 2026",
    ),
    "neurosegnet_msdb": Entry(
        "IMSAHLO without its attention, widths ours",
        "Jain et al., arXiv 2601.11645, 2026",
    ),
    "nnunet": Entry(
        "nnU-Net's plain network: strided convolutions, instance norm",
        "Isensee et al., Nature Methods 2021",
    ),
    "resenc_unet": Entry(
        "nnU-Net with the residual encoder",
        "Isensee et al., MICCAI 2024",
    ),
    "resenc_unet_small": Entry(
        "nnU-Net with a narrow residual encoder",
        "Isensee et al., MICCAI 2024",
    ),
    "residual_unet": Entry(
        "residual U-Net with group norm, widths ours",
        "Jain et al., arXiv 2601.11645, 2026",
    ),
    "transunet": Entry(
        "TransUNet: ResNet-50 and ViT-B/16 encoder",
        "Chen et al., arXiv 2102.04306, 2021",
    ),
    "transunet_small": Entry(
        "TransUNet with four narrow transformer layers",
        "Chen et al., arXiv 2102.04306, 2021",
    ),
    "unet": Entry(
        "U-Net with padding and batch norm",
        "Ronneberger et al., MICCAI 2015",
    ),
    "unet_nano": Entry(
        "U-Net at an eighth of the width",
        "Ronneberger et al., MICCAI 2015",
    ),
    "unet_small": Entry("U-Net at half the width", "Ronneberger et al., MICCAI 2015"),
    "unet_tiny": Entry(
        "U-Net at a quarter of the width",
        "Ronneberger et al., MICCAI 2015",
    ),
    "unetpp": Entry(
        "U-Net++ with bilinear up-sampling",
        "Zhou et al., DLMIA 2018",
    ),
    "unetpp_nano": Entry(
        "U-Net++ at a quarter of the width",
        "Zhou et al., DLMIA 2018",
    ),
    "unetpp_small": Entry(
        "U-Net++ at half the width",
        "Zhou et al., DLMIA 2018",
    ),
    "unext": Entry(
        "UNeXt: shifted MLPs at low resolution",
        "Valanarasu and Patel, MICCAI 2022",
    ),
    "unext_s": Entry(
        "UNeXt at about half the width",
        "Valanarasu and Patel, MICCAI 2022",
    ),
}

METRICS = {
    "accuracy": Entry("share of pixels with the right class", "definition"),
    "aggregated_jaccard": Entry(
        "AJI of label maps, AJI+ with plus=True",
        "Kumar et al., IEEE TMI 2017; Graham et al., Medical Image Analysis 2019",
    ),
    "average_precision": Entry(
        "TP / (TP + FP + FN) of objects at ten IoU thresholds",
        "Data Science Bowl 2018; Weigert et al., WACV 2020",
    ),
    "average_surface_distance": Entry(
        "mean distance of the outlines: ASD, ASSD or MASD",
        "Heimann et al., IEEE TMI 2009",
    ),
    "balanced_accuracy": Entry(
        "mean recall over the classes of the truth", "definition"
    ),
    "betti_error": Entry(
        "differences in numbers of components, holes, cavities, also by patches",
        "after Hu et al., NeurIPS 2019",
    ),
    "betti_numbers": Entry("components, holes or tunnels, cavities", "definition"),
    "boundary_f1": Entry(
        "F1 of outlines within a tolerance", "Csurka et al., BMVC 2013"
    ),
    "boundary_iou": Entry(
        "Jaccard index of bands along the outlines", "Cheng et al., CVPR 2021"
    ),
    "brier_score": Entry(
        "mean squared error of probabilities", "Brier, Monthly Weather Review 1950"
    ),
    "cldice": Entry("overlap of centre lines", "Shit et al., clDice, CVPR 2021"),
    "confusion": Entry("pixels per true and predicted class", "definition"),
    "det_score": Entry(
        "DET: cost of repairing the detected objects", "Matula et al., PLoS ONE 2015"
    ),
    "dice": Entry("Dice = F1 of two masks", "Dice, Ecology 1945"),
    "ensemble_dice": Entry(
        "Dice2 over all overlapping pairs of objects",
        "Vu et al., Front. Bioeng. Biotechnol. 2019",
    ),
    "euler_number": Entry("components - holes (- tunnels + cavities)", "definition"),
    "expected_calibration_error": Entry(
        "distance of confidence and frequency: ECE, RMS or maximum",
        "Guo et al., ICML 2017",
    ),
    "fluocells_summary_legacy": Entry(
        "data-set summary exactly as the study's program computes it",
        "Clissa et al., program fluocells",
    ),
    "hausdorff": Entry(
        "largest distance of the outlines, HD95 with percentile=95",
        "Huttenlocher et al., IEEE TPAMI 1993",
    ),
    "image_mean": Entry(
        "mean over images that skips undefined values and counts the rest", "definition"
    ),
    "iou": Entry("Jaccard index of two masks", "Jaccard 1912"),
    "macro_f1": Entry("unweighted mean of F1 over classes", "definition"),
    "mae": Entry("mean absolute error of cell counts", "definition"),
    "mape": Entry("mean absolute percentage error of cell counts", "definition"),
    "match_by_distance": Entry(
        "objects matched by the distance of centroids",
        "Clissa et al., loss study on Fluorescent Neuronal Cells",
    ),
    "match_by_iou": Entry(
        "objects matched by IoU, one to one or many to one",
        "Weigert et al., WACV 2020; Clissa et al., loss study",
    ),
    "mcc": Entry("Matthews correlation coefficient of two masks", "Matthews, BBA 1975"),
    "medae": Entry("median absolute error of cell counts", "definition"),
    "micro_f1": Entry(
        "F1 of counts pooled over classes, equal to the accuracy", "definition"
    ),
    "mpe": Entry(
        "mean percentage error of cell counts, positive if under-counted",
        "Clissa et al., loss study on Fluorescent Neuronal Cells",
    ),
    "mpe_fluocells": Entry(
        "the same as a fraction of opposite sign", "Clissa et al., program fluocells"
    ),
    "object_scores": Entry(
        "precision, recall, F1, accuracy, PQ from counts of objects",
        "definition; Weigert et al., WACV 2020",
    ),
    "object_sums": Entry(
        "counts of objects carried over batches and devices", "definition"
    ),
    "panoptic_quality": Entry(
        "detection, segmentation and panoptic quality", "Kirillov et al., CVPR 2019"
    ),
    "per_class": Entry("precision, recall, F1 and IoU of every class", "definition"),
    "pixel_scores": Entry("scores of pixel counts pooled over images", "definition"),
    "pixel_sums": Entry(
        "counts of pixels carried over batches and devices", "definition"
    ),
    "precision": Entry("TP / (TP + FP) of two masks", "definition"),
    "recall": Entry("TP / (TP + FN) of two masks", "definition"),
    "rmse": Entry("root mean squared error of cell counts", "definition"),
    "seg_score": Entry(
        "SEG: mean IoU over the true objects", "Maska et al., Bioinformatics 2014"
    ),
    "specificity": Entry("TN / (TN + FP) of two masks", "definition"),
    "surface_dice": Entry(
        "share of edge pixels within a tolerance (NSD)",
        "Nikolov et al., J. Med. Internet Res. 2021",
    ),
    "surface_dice_subpixel": Entry(
        "the same by length, of outlines between the pixels",
        "Nikolov et al., J. Med. Internet Res. 2021",
    ),
    "weighted_f1": Entry(
        "mean of F1 over classes, weighted by true pixels", "definition"
    ),
}

DATA = {
    "fnc_synth": Entry(
        "generated fluorescence images, 200/40/60; also fnc_synth/demo, fnc_synth/smoke, "
        "fnc_synth/crowded (half of the cells touch)",
        "after Morelli et al. 2021",
    ),
    "tfds:fnc_synth": Entry("the same, built once by tfds", ""),
    "lesion3d_synth": Entry(
        "generated heads with lesions in 3-D, 200/40/60; also lesion3d_synth/demo, "
        "lesion3d_synth/smoke",
        "after Liew et al. 2022",
    ),
    "tfds:lesion3d_synth": Entry("the same, built once by tfds", ""),
    "tfds:fnc_v1": Entry(
        "neurons, 283 images; /authors, /by_animal, /imsahlo_512x768",
        "Morelli et al., Scientific Reports 2021",
    ),
    "tfds:fnc_v2": Entry(
        "neurons in three stains, 1,874 images; /yellow, /green, /red",
        "Clissa et al., Scientific Data 2024",
    ),
    "tfds:sbsst265": Entry(
        "nuclei at 10x to 63x, 79 images; /csv, /all",
        "Kromp et al., Scientific Data 2020",
    ),
    "tfds:dsb2018": Entry(
        "nuclei of many kinds, 670 images; /fluo, /stained, /all",
        "Caicedo et al., Nature Methods 2019",
    ),
    "tfds:bbbc039": Entry(
        "nuclei of U2OS cells, 200 images", "Ljosa et al., Nature Methods 2012"
    ),
    "tfds:atlas_r2": Entry(
        "lesions of strokes in MRI, 955 volumes", "Liew et al., Scientific Data 2022"
    ),
    "FOLDER": Entry(
        "a folder of images with masks: images/ + masks/, Cellpose, nnU-Net, DSB2018, "
        "SMP",
        "",
    ),
}

# A test holds them against the models.
COSTS = {
    "attention_unet": Cost(34_877_421, 796.19, "512x768x1", 16, (2, 3)),
    "attention_unet_nano": Cost(547_657, 12.50, "512x768x1", 16, (2, 3)),
    "attention_unet_small": Cost(8_725_501, 199.19, "512x768x1", 16, (2, 3)),
    "attention_unet_tiny": Cost(2_184_453, 49.87, "512x768x1", 16, (2, 3)),
    "cresunet": Cost(1_707_285, 42.81, "512x768x1", 8, (2, 3)),
    "cresunet_nano": Cost(427_661, 10.73, "512x768x1", 8, (2, 3)),
    "deeplabv3plus": Cost(26_671_313, 108.45, "512x768x1", 16, (2,)),
    "deeplabv3plus_r34": Cost(22_431_185, 93.37, "512x768x1", 16, (2,)),
    "dtasunet": Cost(9_712_119, 145.03, "512x768x1", 16, (2, 3)),
    "dtasunet_small": Cost(4_325_299, 68.53, "512x768x1", 16, (2, 3)),
    "imsahlo": Cost(2_702_667, 43.94, "512x768x1", 16, (2, 3)),
    "imsahlo_large": Cost(10_792_931, 175.38, "512x768x1", 16, (2, 3)),
    "mobilevit": Cost(6_352_513, 45.86, "512x768x3", 32, (2,)),
    "mobilevit_xs": Cost(2_938_641, 25.25, "512x768x3", 32, (2,)),
    "mobilevit_xxs": Cost(1_849_425, 13.93, "512x768x3", 32, (2,)),
    "neurosegnet": Cost(2_059_041, 38.19, "512x768x1", 16, (2, 3)),
    "neurosegnet_msdb": Cost(2_680_289, 43.84, "512x768x1", 16, (2, 3)),
    "nnunet": Cost(20_618_085, 170.60, "512x768x1", 32, (2, 3)),
    "resenc_unet": Cost(71_815_589, 378.77, "512x768x1", 32, (2, 3)),
    "resenc_unet_small": Cost(3_363_860, 45.64, "512x768x1", 16, (2, 3)),
    "residual_unet": Cost(2_030_817, 38.19, "512x768x1", 16, (2, 3)),
    "transunet": Cost(105_269_649, 336.19, "512x512x3", 16, (2,)),
    "transunet_small": Cost(6_927_025, 41.87, "512x512x3", 16, (2,)),
    "unet": Cost(31_036_481, 577.10, "512x768x1", 16, (2, 3)),
    "unet_nano": Cost(486_409, 9.07, "512x768x1", 16, (2, 3)),
    "unet_small": Cost(7_762_465, 144.40, "512x768x1", 16, (2, 3)),
    "unet_tiny": Cost(1_942_289, 36.16, "512x768x1", 16, (2, 3)),
    "unetpp": Cost(9_162_753, 413.37, "512x768x1", 16, (2, 3)),
    "unetpp_nano": Cost(574_785, 25.88, "512x768x1", 16, (2, 3)),
    "unetpp_small": Cost(2_293_505, 103.41, "512x768x1", 16, (2, 3)),
    "unext": Cost(1_471_633, 6.74, "512x768x3", 32, (2,)),
    "unext_s": Cost(253_417, 1.19, "512x768x3", 32, (2,)),
}

CATALOG = {"losses": LOSSES, "models": MODELS, "metrics": METRICS, "data": DATA}

# Losses by what they look at; the other names are published settings of these.
FAMILIES = {
    "pixel": ("cross_entropy_loss", "focal_loss", "unified_focal_loss"),
    "overlap": (
        "dice_loss",
        "jaccard_loss",
        "generalized_dice_loss",
        "tversky_loss",
        "focal_tversky_loss",
        "power_mae_loss",
        "lovasz_loss",
    ),
    "boundary": (
        "contour_weighted_loss",
        "separable_contour_loss",
        "boundary_loss",
        "hausdorff_loss",
    ),
    "topology": ("soft_cldice_loss", "dice_cldice_loss", "cbdice_loss"),
    "moments": (
        "local_moment_loss",
        "instance_moment_loss",
        "global_moment_loss",
        "residual_moment_loss",
    ),
    "instance": ("blob_loss", "ici_loss", "dual_ici_loss", "cc_dice_loss"),
    "compound": (
        "weighted_sum",
        "combined_loss",
        "combined_focal_tversky_loss",
        "imsahlo_loss",
    ),
}


def family(loss: str) -> str:
    """The family of a loss in `LOSSES`, "preset" for a published setting."""
    named = (name for name, members in FAMILIES.items() if loss in members)
    return next(named, "preset")
