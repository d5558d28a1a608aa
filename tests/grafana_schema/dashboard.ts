// A strict type of Grafana 11.6 dashboards: each kind of panel with its own options.
//
// Grafana's Panel has options and custom fields of any shape, because panels are plug-ins; here
// they are those of the panel kinds that the project uses. Options for which a plug-in has a default
// may be omitted. JSON has no enums, so Plain replaces an enum by its values.
import type * as grafana from "@grafana/schema/dist/esm/raw/dashboard/x/dashboard_types.gen";
import type * as common from "@grafana/schema/dist/esm/common/common.gen";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as statetimeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Plain<Item>[]
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

// The query of the Prometheus data source; its types are not in @grafana/schema.
interface Query extends common.DataQuery {
  datasource: grafana.DataSourceRef;
  expr: string;
  format: "time_series" | "table" | "heatmap";
  instant?: boolean;
  legendFormat: string;
  range?: boolean;
}

type PanelOf<Kind extends string, Options, Custom> = Omit<
  grafana.Panel,
  "type" | "options" | "fieldConfig" | "targets"
> & {
  type: Kind;
  options?: Partial<Options>;
  fieldConfig: Omit<grafana.FieldConfigSource, "defaults"> & {
    defaults: Omit<grafana.FieldConfig, "custom"> & { custom?: Partial<Custom> };
  };
  targets: Query[];
};

type Panel =
  | PanelOf<"bargauge", bargauge.Options, Record<string, never>>
  | PanelOf<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | PanelOf<"stat", stat.Options, Record<string, never>>
  | PanelOf<"state-timeline", statetimeline.Options, statetimeline.FieldConfig>
  | PanelOf<"table", table.Options, table.FieldConfig>
  | PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>;

// The fields that the Prometheus data source reads from an annotation, beside the common ones.
interface Annotation extends grafana.AnnotationQuery {
  expr: string;
  step: string;
  textFormat: string;
  titleFormat: string;
}

export type Dashboard = Plain<
  Omit<grafana.Dashboard, "panels" | "annotations"> & {
    annotations: { list: Annotation[] };
    panels: (Panel | grafana.RowPanel)[];
  }
>;
